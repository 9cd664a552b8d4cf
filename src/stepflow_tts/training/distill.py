"""The student: exact warm start from the teacher, then distillation on cached trajectories."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from stepflow_tts.config import Conditioning, ModelConfig
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.conditioning import StepConditioning, TimeConditioning
from stepflow_tts.training.loop import Loss, step_generator
from stepflow_tts.training.methods import METHODS, DistillConfig, Networks, endpoint_term
from stepflow_tts.training.trajectory_data import Trajectories, TrajectoryBatch

FROZEN = ("style.", "text.", "durations.", "null_")  # the trunk alone learns to take one step


def student_from(
    teacher: AcousticModel,
    config: ModelConfig,
    *,
    conditioning: Conditioning,
    num_symbols: int,
    num_steps: tuple[int, ...] = (1, 2, 4),
) -> AcousticModel:
    """A student that equals the unguided Euler teacher before its first update.

    `token` equals it at n = 1, `table` at every n; `time` is a copy, which keeps adaLN-Zero.

    Raises:
        OptionError: `teacher` has no time MLP, so it is a student itself.
    """
    if not isinstance(teacher.step, TimeConditioning):
        raise OptionError("A student starts from a teacher; this checkpoint is a student's.")
    if conditioning == "time":
        return copy.deepcopy(teacher).requires_grad_(True)
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


def take_trunk(student: AcousticModel, start: AcousticModel) -> None:
    """Let a student begin with the trunk of one that has learnt; the frozen parts stay its teacher's.

    Raises:
        OptionError: `start` is of another size, or is told the step in another way.
    """
    trunk, own = (
        {k: v for k, v in model.state_dict().items() if not k.startswith(FROZEN)}
        for model in (start, student)
    )
    if {k: v.shape for k, v in trunk.items()} != {k: v.shape for k, v in own.items()}:
        raise OptionError(
            "start_student has another size or conditioning than the recipe's student. Take [model] "
            "and conditioning from its config.json, or leave start_student out."
        )
    student.load_state_dict(trunk, strict=False)


@torch.no_grad()
def blend(student: AcousticModel, start: AcousticModel, share: float) -> None:
    """Mix weights of what a fine-tuned student started from into it, which keeps what that knew.

    Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    others = dict(start.named_parameters())
    for name, parameter in student.named_parameters():
        parameter.lerp_(others[name], share)


class DistillTask:
    """One of `METHODS` on trajectories; a `Task` of the loop."""

    def __init__(
        self,
        student: AcousticModel,
        trajectories: Trajectories,
        held_out: Trajectories,
        config: DistillConfig,
        seed: int,
        *,
        teacher: AcousticModel | None = None,
        cfg_strength: float = 0.0,
    ) -> None:
        """Choose what is trained.

        Args:
            student: of `student_from`.
            trajectories: to learn from.
            held_out: to validate on.
            config: the method and its settings.
            seed: of every draw.
            teacher: for consistency distillation, on the device of the training.
            cfg_strength: of that teacher's guidance.

        Raises:
            OptionError: consistency distillation of a student that is not told the time, or
                without a teacher.
        """
        self.student, self.trajectories, self.held_out = student, trajectories, held_out
        self.config, self.seed = config, seed
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(not name.startswith(FROZEN))
        self.networks = Networks(student)
        if config.method == "consistency":
            if not isinstance(student.step, TimeConditioning) or teacher is None:
                raise OptionError(
                    'distill.method "consistency" needs its teacher, and a student that is told '
                    'the time: set conditioning = "time" in the recipe.'
                )
            target = copy.deepcopy(student).requires_grad_(False)
            teacher = teacher.eval().requires_grad_(False)
            self.networks = Networks(student, target, teacher, cfg_strength)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The student, and for consistency its target network, which has no gradient."""
        target = self.networks.target
        return {"model": self.student} | ({} if target is None else {"target": target})

    def batch(self, step: int) -> TrajectoryBatch:
        """Trajectories of like length."""
        return self.trajectories.batch(step)

    def losses(self, batch: TrajectoryBatch, step: int) -> Iterator[Loss]:
        """The method's loss; once it is stepped, the target network follows."""
        method = METHODS[self.config.method]
        value, logs = method(self.networks, batch, self.config, step_generator(self.seed, step))
        yield Loss("model", value, logs)
        if self.networks.target is not None:
            follow(self.networks.target, self.student, self.config.target_decay)

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002
        """Endpoint losses on fixed batches of trajectories kept back, at every n that is learnt."""
        assert isinstance(ema, AcousticModel)
        scores = {}
        for n in (1,) if self.config.method == "consistency" else (1, 2, 4):
            total = 0.0
            for i in range(self.config.validation_batches):
                total += endpoint_term(ema, self.held_out.batch(i), n).item()
            scores[f"held_out_endpoint_{n}"] = total / self.config.validation_batches
        return scores


@torch.no_grad()
def follow(target: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the target's weights to `decay` of themselves and 1 - `decay` of the student's."""
    torch._foreach_lerp_(list(target.parameters()), list(student.parameters()), 1 - decay)
