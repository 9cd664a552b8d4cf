"""Trains a vocoder's refiner: a student's log-mels in, its teacher's out, at the pitch of the latter."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stepflow_tts.audio.mel import from_flow, raise_contrast
from stepflow_tts.config import FlowConfig, VocoderConfig
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.refiner import Refiner
from stepflow_tts.models.source import Pitch
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.training.loop import Loss, step_generator
from stepflow_tts.training.losses import all_bands
from stepflow_tts.training.methods import endpoint_of
from stepflow_tts.training.trajectory_data import Trajectories, TrajectoryBatch


@dataclass(frozen=True, slots=True)
class RefinerConfig:
    """Size of a refiner and what it is trained on; the recipe's [refiner] section."""

    dim: int = 160
    num_layers: int = 3
    teacher_share: float = 0.1  # of the batches: log-mels that want no change
    validation_batches: int = 8


class Example(NamedTuple):
    """What the refiner gets and what it should give, (B, T, M) in nats."""

    log_mel: Tensor
    pitch: Pitch  # of the target: with it alone the harmonics have one place
    target: Tensor


def with_refiner(vocoder: Vocoder, config: RefinerConfig) -> Vocoder:
    """The same vocoder with a refiner that changes nothing yet, in place of the one it has.

    Raises:
        OptionError: the vocoder reads no pitch.
    """
    if not vocoder.config.prior:
        raise OptionError(
            "A refiner needs a vocoder that reads the pitch. Train one with vocoder.vocoder.prior = true, "
            "or name a checkpoint that has one as start_vocoder."
        )
    size = dataclasses.replace(
        vocoder.config, refiner_dim=config.dim, refiner_layers=config.num_layers
    )
    result = Vocoder(size, vocoder.mel)
    assert result.refiner is not None
    start = without_refiner(vocoder).state_dict()
    new = {f"refiner.{k}": v for k, v in result.refiner.state_dict().items()}
    result.load_state_dict(start | new)
    return result


def without_refiner(vocoder: Vocoder) -> Vocoder:
    """The same vocoder as it was before it got a refiner; itself if it has none."""
    if vocoder.refiner is None:
        return vocoder
    size = dataclasses.replace(
        vocoder.config, refiner_layers=0, refiner_dim=VocoderConfig().refiner_dim
    )
    result = Vocoder(size, vocoder.mel)
    kept = {k: v for k, v in vocoder.state_dict().items() if not k.startswith("refiner.")}
    result.load_state_dict(kept)
    return result


class RefinerTask:
    """A `Task` of the loop: the refiner alone learns; student and vocoder stay as they are."""

    def __init__(
        self,
        student: AcousticModel,
        vocoder: Vocoder,
        trajectories: Trajectories,
        held_out: Trajectories,
        config: RefinerConfig,
        flow: FlowConfig,
        seed: int,
    ) -> None:
        """Choose what is trained.

        Args:
            student: whose log-mels are refined, on the device of the training.
            vocoder: that the refiner is for, on that device.
            trajectories: to learn from.
            held_out: to validate on.
            config: the refiner's size.
            flow: the student's, with the contrast that it is heard with.
            seed: of every draw.

        Raises:
            OptionError: the vocoder reads no pitch.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            refiner = with_refiner(vocoder, config).refiner
        assert refiner is not None
        assert vocoder.pitch is not None
        self.refiner: Refiner = refiner
        self.pitch = vocoder.pitch.eval().requires_grad_(False)
        self.student = student.eval().requires_grad_(False)
        self.trajectories, self.held_out = trajectories, held_out
        self.config, self.flow, self.seed = config, flow, seed

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The refiner."""
        return {"refiner": self.refiner}

    def batch(self, step: int) -> TrajectoryBatch:
        """Trajectories of like length."""
        return self.trajectories.batch(step)

    def losses(self, batch: TrajectoryBatch, step: int) -> Iterator[Loss]:
        """How far the refined log-mels are from the teacher's."""
        generator = step_generator(self.seed, step)
        from_teacher = torch.rand(1, generator=generator).item() < self.config.teacher_share
        example = self._example(batch)
        if from_teacher:
            example = example._replace(log_mel=example.target)
        value = self._distance(self.refiner, example, batch)
        name = "refined_teacher" if from_teacher else "refined"
        yield Loss("refiner", value, {name: value.item()})

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002
        """The same on trajectories kept back, with the refiner and without it."""
        scores = {"held_out_draft": 0.0, "held_out_refined": 0.0}
        for i in range(self.config.validation_batches):
            batch = self.held_out.batch(i)
            example = self._example(batch)
            for name, network in (("draft", None), ("refined", ema)):
                distance = self._distance(network, example, batch).item()
                scores[f"held_out_{name}"] += distance / self.config.validation_batches
        return scores

    @torch.no_grad()
    def _example(self, batch: TrajectoryBatch) -> Example:
        """The student's log-mels of one step and the teacher's, both as the vocoder gets them."""
        draft = endpoint_of(self.student, batch, 1)
        log_mel, target = (self._heard(x) for x in (draft, batch.states[-1].to(draft.device)))
        with torch.autocast(target.device.type, enabled=False):
            return Example(log_mel, self.pitch.predict(target), target)

    def _heard(self, x: Tensor) -> Tensor:
        """Normalized log-mels in nats, as synthesis gives them to the vocoder."""
        raised = raise_contrast(x.float(), self.flow.contrast)
        return from_flow(raised, self.flow).clamp(min=self.flow.log_floor)

    def _distance(
        self, network: nn.Module | None, example: Example, batch: TrajectoryBatch
    ) -> Tensor:
        """Mean square distance to the target in squared deviations of the flow."""
        log_mel = example.log_mel if network is None else network(example.log_mel, example.pitch)
        difference = (log_mel - example.target) / self.flow.std
        return all_bands(difference, batch.frame_mask.to(difference.device))
