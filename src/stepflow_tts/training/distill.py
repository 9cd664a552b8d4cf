"""The student: exact warm start from the teacher, then dual supervision on cached trajectories."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stepflow_tts.config import ModelConfig
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.conditioning import StepConditioning, StepIndex, TimeConditioning
from stepflow_tts.training.loop import Loss, step_generator
from stepflow_tts.training.losses import dual_supervision
from stepflow_tts.training.trajectories import Trajectories, TrajectoryBatch

FROZEN = ("style.", "text.", "durations.", "null_")  # the trunk alone learns to take one step


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Settings of distillation; the weights are the paper's."""

    endpoint_weight: float = 0.7
    velocity_weight: float = 0.3
    chance_1: float = 0.7  # of a batch at n = 1
    chance_2: float = 0.2
    chance_4: float = 0.1
    zero_tau: float = (
        0.5  # share of the velocity losses at the segment's start, as inference sees it
    )
    highest_tau: float = 0.5
    validation_batches: int = 8


def student_from(
    teacher: AcousticModel,
    config: ModelConfig,
    *,
    conditioning: Literal["token", "table"],
    num_symbols: int,
    num_steps: tuple[int, ...] = (1, 2, 4),
) -> AcousticModel:
    """A student that equals the unguided Euler teacher before its first update.

    `token` equals it at n = 1, `table` at every n.

    Raises:
        OptionError: `teacher` has no time MLP, so it is a student itself.
    """
    if not isinstance(teacher.step, TimeConditioning):
        raise OptionError("A student starts from a teacher; this checkpoint is a student's.")
    student = AcousticModel(
        config,
        conditioning=conditioning,
        num_symbols=num_symbols,
        n_mels=teacher.n_mels,
        num_steps=num_steps,
    )
    shared = {k: v for k, v in teacher.state_dict().items() if not k.startswith("step.")}
    left = student.load_state_dict(shared, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("step.") for key in left.missing_keys)
    assert isinstance(student.step, StepConditioning)
    student.step.start_from(teacher.step)
    return student


class DistillTask:
    """Dual supervision on trajectories; a `Task` of the loop."""

    def __init__(
        self,
        student: AcousticModel,
        trajectories: Trajectories,
        held_out: Trajectories,
        config: DistillConfig,
        seed: int,
    ) -> None:
        self.student, self.trajectories, self.held_out = student, trajectories, held_out
        self.config, self.seed = config, seed
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(not name.startswith(FROZEN))

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The student alone."""
        return {"model": self.student}

    def batch(self, step: int) -> TrajectoryBatch:
        """Trajectories of like length."""
        return self.trajectories.batch(step)

    def losses(self, batch: TrajectoryBatch, step: int) -> Iterator[Loss]:
        """Endpoint and mean-velocity loss at one drawn number of steps."""
        generator = step_generator(self.seed, step)
        c = self.config
        chances = torch.tensor([c.chance_1, c.chance_2, c.chance_4])
        n = (1, 2, 4)[int(torch.multinomial(chances, 1, generator=generator))]
        endpoint, velocity = self._terms(self.student, batch, n, generator)
        value = c.endpoint_weight * endpoint + c.velocity_weight * velocity
        logs = {f"endpoint_{n}": endpoint.item(), f"velocity_{n}": velocity.item()}
        yield Loss("model", value, logs)

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002
        """Endpoint losses at every n on fixed batches of trajectories kept back."""
        assert isinstance(ema, AcousticModel)
        scores = {}
        for n in (1, 2, 4):
            total = 0.0
            for i in range(self.config.validation_batches):
                terms = self._terms(ema, self.held_out.batch(i), n, step_generator(self.seed, i))
                total += terms[0].item()
            scores[f"held_out_endpoint_{n}"] = total / self.config.validation_batches
        return scores

    def _terms(
        self, model: AcousticModel, batch: TrajectoryBatch, n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Endpoint and velocity loss of a batch at n steps."""
        c = self.config
        k = int(torch.randint(n, (1,), generator=generator))
        start = torch.rand(1, generator=generator).item() < c.zero_tau
        tau = 0.0 if start else c.highest_tau * torch.rand(1, generator=generator).item()
        device = next(model.parameters()).device
        batch = TrajectoryBatch(*(x.to(device) for x in batch))
        voice = model.encode_voice(batch.reference)
        encoding = model.encode_text(batch.token_ids, voice, batch.token_mask)
        num_frames = batch.frame_mask.shape[1]
        conditions = model.frame_conditions(encoding, batch.durations, num_frames)

        def f(x: Tensor, step: int) -> Tensor:
            return model.velocity(x, StepIndex(n, step), conditions, voice, batch.frame_mask)

        return dual_supervision(f, batch.states, n, k, tau, batch.frame_mask)
