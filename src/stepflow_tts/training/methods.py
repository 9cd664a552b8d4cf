"""The methods of distillation: each turns a batch of trajectories into one loss.

dual          endpoint and mean velocity at a drawn number of steps; with `guidance_weight` also the
              weak guidance
endpoint      the endpoint alone, at the same drawn numbers of steps
consistency   the endpoint of neighbouring times agrees; one step only
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.models.acoustic import AcousticModel, VoiceContext
from stepflow_tts.models.conditioning import StepIndex, TimeConditioning
from stepflow_tts.training.losses import (
    consistency_distillation,
    dual_supervision,
    endpoint_distillation,
    roll_out,
    weak_guidance,
)
from stepflow_tts.training.trajectory_data import TrajectoryBatch

Method = Literal["dual", "endpoint", "consistency"]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Settings of distillation; the weights are the paper's."""

    method: Method = "dual"
    endpoint_weight: float = 0.7  # dual
    velocity_weight: float = 0.3  # dual
    chance_1: float = 0.7  # of a batch at n = 1
    chance_2: float = 0.2
    chance_4: float = 0.1
    zero_tau: float = (
        0.5  # share of the velocity losses at the segment's start, as inference sees it
    )
    highest_tau: float = 0.5
    guidance_weight: float = 0.0  # dual: of the weak guidance; the paper's is 0.01, 0 is none
    guidance_chance: float = 0.02  # of a batch to have it
    consistency_steps: int = 12  # consistency: Euler steps of the teacher from noise to speech
    target_decay: float = 0.95  # consistency: of the network that says what is right
    validation_batches: int = 8


class Networks(NamedTuple):
    """What takes part in an update."""

    student: AcousticModel
    target: AcousticModel | None = None  # consistency: the student's slow average
    teacher: AcousticModel | None = None  # consistency
    cfg_strength: float = 0.0  # of the teacher


Result = tuple[Tensor, dict[str, float]]  # the loss, and what is logged


def draw_steps(config: DistillConfig, generator: torch.Generator) -> int:
    """The number of steps of a batch: 1, 2 or 4."""
    chances = torch.tensor([config.chance_1, config.chance_2, config.chance_4])
    return (1, 2, 4)[int(torch.multinomial(chances, 1, generator=generator))]


def dual(
    networks: Networks, batch: TrajectoryBatch, config: DistillConfig, generator: torch.Generator
) -> Result:
    """Endpoint and mean velocity, and now and then the weak guidance."""
    n = draw_steps(config, generator)
    endpoint, velocity, k = dual_terms(networks.student, batch, n, config, generator)
    value = config.endpoint_weight * endpoint + config.velocity_weight * velocity
    logs = {f"endpoint_{n}": endpoint.item(), f"velocity_{n}": velocity.item()}
    drawn = torch.rand(1, generator=generator).item() < config.guidance_chance
    if config.guidance_weight > 0 and drawn:
        gap = _guidance_gap(networks.student, batch, n, k)
        value = value + config.guidance_weight * gap
        logs["guidance"] = gap.item()
    return value, logs


def endpoint(
    networks: Networks, batch: TrajectoryBatch, config: DistillConfig, generator: torch.Generator
) -> Result:
    """The endpoint alone: what `dual` is with the weights 1 and 0, without the second evaluation."""
    n = draw_steps(config, generator)
    value = endpoint_term(networks.student, batch, n)
    return value, {f"endpoint_{n}": value.item()}


def consistency(
    networks: Networks, batch: TrajectoryBatch, config: DistillConfig, generator: torch.Generator
) -> Result:
    """Neighbouring times of the teacher's path lead to one endpoint."""
    assert networks.target is not None
    assert networks.teacher is not None
    num_items, count = len(batch.frame_mask), config.consistency_steps
    index = torch.randint(count, (num_items,), generator=generator)
    batch = _to(batch, networks.student)
    times = (index / count, (index + 1) / count)  # the last ends at 1 exactly
    device = batch.states.device
    value = consistency_distillation(
        _velocity_at_time(networks.student, batch),
        _velocity_at_time(networks.target, batch),
        _guided(networks.teacher, batch, networks.cfg_strength),
        on_path(batch.states, times[0].to(device)),
        (times[0].to(device), times[1].to(device)),
        batch.frame_mask,
    )
    return value, {"consistency": value.item()}


METHODS: dict[Method, Callable[..., Result]] = {
    "dual": dual,
    "endpoint": endpoint,
    "consistency": consistency,
}


def endpoint_of(model: AcousticModel, batch: TrajectoryBatch, n: int) -> Tensor:
    """(B, T, M) where the model arrives after n steps from the batch's noise."""
    batch = _to(batch, model)
    return roll_out(_velocity_at_step(model, batch, n), batch.states[0], n)[1]


def endpoint_term(model: AcousticModel, batch: TrajectoryBatch, n: int) -> Tensor:
    """The endpoint loss of a batch at n steps."""
    batch = _to(batch, model)
    f = _velocity_at_step(model, batch, n)
    return endpoint_distillation(f, batch.states, n, batch.frame_mask)


def dual_terms(
    model: AcousticModel,
    batch: TrajectoryBatch,
    n: int,
    config: DistillConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """Endpoint and velocity loss of a batch at n steps, and the segment of the second."""
    k = int(torch.randint(n, (1,), generator=generator))
    start = torch.rand(1, generator=generator).item() < config.zero_tau
    tau = 0.0 if start else config.highest_tau * torch.rand(1, generator=generator).item()
    batch = _to(batch, model)
    f = _velocity_at_step(model, batch, n)
    return *dual_supervision(f, batch.states, n, k, tau, batch.frame_mask), k


def on_path(states: Tensor, t: Tensor) -> Tensor:
    """(B, T, M) on the chords between the states (K + 1, B, T, M) that are kept, at times t (B,)."""
    intervals = len(states) - 1
    place = t * intervals
    low = place.long().clamp(max=intervals - 1)
    items = torch.arange(len(t), device=t.device)
    share = (place - low)[:, None, None]
    return torch.lerp(states[low, items], states[low + 1, items], share)


def _guidance_gap(student: AcousticModel, batch: TrajectoryBatch, n: int, k: int) -> Tensor:
    """The weak guidance at the start of segment k of n."""
    batch = _to(batch, student)
    x = batch.states[k * (len(batch.states) - 1) // n]  # (B, T, M)
    with torch.no_grad():
        conditional = _velocity_at_step(student, batch, n)(x, k)
    no_text = student.null_conditions(*batch.frame_mask.shape)
    no_voice = student.null_voice(len(x))
    step = _step(student, n, k, len(x))
    unconditional = student.velocity(x, step, no_text, no_voice, batch.frame_mask)
    return weak_guidance(unconditional, conditional, batch.frame_mask)


def _velocity_at_step(
    model: AcousticModel, batch: TrajectoryBatch, n: int
) -> Callable[[Tensor, int], Tensor]:
    """(x, k) -> the velocity at step k of n, text and voice encoded once."""
    conditions, voice = _encode(model, batch)

    def f(x: Tensor, k: int) -> Tensor:
        return model.velocity(x, _step(model, n, k, len(x)), conditions, voice, batch.frame_mask)

    return f


def _velocity_at_time(
    model: AcousticModel, batch: TrajectoryBatch
) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, t) -> the velocity of a network that is told the time; encodes at the first call."""

    def f(x: Tensor, t: Tensor) -> Tensor:
        conditions, voice = _encode(model, batch)
        return model.velocity(x, t, conditions, voice, batch.frame_mask)

    return f


def _guided(
    teacher: AcousticModel, batch: TrajectoryBatch, cfg_strength: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, t) -> the guided velocity of the teacher."""
    conditional = _velocity_at_time(teacher, batch)

    def f(x: Tensor, t: Tensor) -> Tensor:
        no_text = teacher.null_conditions(*batch.frame_mask.shape)
        v_0 = teacher.velocity(x, t, no_text, teacher.null_voice(len(x)), batch.frame_mask)
        return flow.guide(conditional(x, t).float(), v_0.float(), cfg_strength)

    return f


def _step(model: AcousticModel, n: int, k: int, num_items: int) -> Tensor | StepIndex:
    """Step k of n as the model wants it: (B,) times k / n where it is told the time."""
    if isinstance(model.step, TimeConditioning):
        device = next(model.parameters()).device
        return torch.full((num_items,), k / n, device=device)
    return StepIndex(n, k)


def _encode(model: AcousticModel, batch: TrajectoryBatch) -> tuple[Tensor, VoiceContext]:
    """Frame conditions (B, T, E) and voice of a batch."""
    voice = model.encode_voice(batch.reference)
    encoding = model.encode_text(batch.token_ids, voice, batch.token_mask)
    num_frames = batch.frame_mask.shape[1]
    return model.frame_conditions(encoding, batch.durations, num_frames), voice


def _to(batch: TrajectoryBatch, model: AcousticModel) -> TrajectoryBatch:
    """The batch where the model is."""
    device = next(model.parameters()).device
    return TrajectoryBatch(*(x.to(device) for x in batch))
