"""The teacher: conditional flow matching with condition dropout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepflow_tts import flow
from stepflow_tts.config import FlowConfig
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.training.data import Batch, Corpus
from stepflow_tts.training.loop import Loss, step_generator
from stepflow_tts.training.losses import (
    duration_loss,
    masked_mean_square,
    sample_times,
    voiced_frames,
)


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Settings of teacher training."""

    drop_all: float = 0.1  # text and voice together
    drop_voice: float = 0.05  # voice alone
    duration_weight: float = 0.1
    validation_batches: int = 8


class TeacherTask:
    """Flow matching on a corpus; a `Task` of the loop."""

    def __init__(
        self,
        model: AcousticModel,
        corpus: Corpus,
        held_out: Corpus,
        config: TeacherConfig,
        flow_config: FlowConfig,
        seed: int,
    ) -> None:
        self.model, self.corpus, self.held_out = model, corpus, held_out
        self.config, self.flow, self.seed = config, flow_config, seed

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The acoustic model alone."""
        return {"model": self.model}

    def batch(self, step: int) -> Batch:
        """Utterances and references."""
        return self.corpus.batch(step)

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """Flow and duration loss of one batch."""
        generator = step_generator(self.seed, step)
        draw = torch.rand(len(batch.x1), generator=generator)
        drop_all = draw < self.config.drop_all
        drop_voice = draw < self.config.drop_all + self.config.drop_voice
        flow_loss, durations, nats = self._terms(self.model, batch, generator, drop_all, drop_voice)
        value = flow_loss + self.config.duration_weight * durations
        logs = {
            "flow": flow_loss.item(),
            "duration": durations.item(),
            "voiced_nats2": nats.item(),
        }
        yield Loss("model", value, logs)

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002
        """Losses of fixed batches of held-out speakers, the same draws every time."""
        assert isinstance(ema, AcousticModel)
        sums = torch.zeros(3)
        for i in range(self.config.validation_batches):
            batch, generator = self.held_out.batch(i), step_generator(self.seed, i)
            nothing = torch.zeros(len(batch.x1), dtype=torch.bool)
            terms = self._terms(ema, batch, generator, nothing, nothing)
            sums += torch.stack([term.cpu() for term in terms])
        names = ("held_out_flow", "held_out_duration", "held_out_voiced_nats2")
        return dict(zip(names, (sums / self.config.validation_batches).tolist(), strict=True))

    def _terms(
        self,
        model: AcousticModel,
        batch: Batch,
        generator: torch.Generator,
        drop_all: Tensor,
        drop_voice: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Flow loss, duration loss, and the flow loss on voiced frames in squared nats."""
        noise = torch.randn(batch.x1.shape, generator=generator)
        t = sample_times(len(noise), generator)
        device = next(model.parameters()).device
        batch = Batch(*(tensor.to(device) for tensor in batch))
        noise, t, drop_all, drop_voice = (x.to(device) for x in (noise, t, drop_all, drop_voice))
        x_t = flow.path(noise, batch.x1, t[:, None, None])
        voice = model.encode_voice(batch.reference, ~drop_voice)
        encoding = model.encode_text(batch.token_ids, voice, batch.token_mask)
        log_durations = model.predict_durations(encoding, voice, batch.token_mask)
        conditions = model.frame_conditions(encoding, batch.durations, batch.x1.shape[1])
        null = model.null_conditions(*conditions.shape[:2])
        conditions = torch.where(drop_all[:, None, None], null, conditions)
        v = model.velocity(x_t, t, conditions, voice, batch.frame_mask)
        error = v - (batch.x1 - noise)
        flow_loss = masked_mean_square(error, batch.frame_mask, batch.band_mask)
        durations = duration_loss(
            log_durations, batch.durations, batch.token_mask & ~drop_all[:, None]
        )
        nats = batch.x1 * self.flow.std + self.flow.mean
        voiced = voiced_frames(nats, batch.frame_mask, self.flow.log_floor)
        voiced_loss = masked_mean_square(error.detach(), voiced, batch.band_mask)
        return flow_loss, durations, voiced_loss * self.flow.std**2
