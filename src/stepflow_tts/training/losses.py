"""The losses of teacher and students: functions of tensors and callables, no network in sight."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def masked_mean_square(difference: Tensor, frame_mask: Tensor, band_mask: Tensor) -> Tensor:
    """Mean square over the real cells.

    Args:
        difference: (B, T, M).
        frame_mask: (B, T) bool, True = real.
        band_mask: (B, M) bool, True = inside the recording's bandwidth.

    Returns:
        A scalar; every real cell of the batch weighs the same. Zero where none is real.
    """
    mask = frame_mask.unsqueeze(-1) & band_mask.unsqueeze(1)  # (B, T, M)
    return (difference.square() * mask).sum() / mask.sum().clamp(min=1)


def duration_loss(log_durations: Tensor, durations: Tensor, token_mask: Tensor) -> Tensor:
    """Mean square error of log(1 + frames) over the real tokens; all (B, L). Zero where none is."""
    error = log_durations - durations.float().log1p()
    return (error.square() * token_mask).sum() / token_mask.sum().clamp(min=1)


def sample_times(num_items: int, generator: torch.Generator) -> Tensor:
    """(B,) flow times: 80 % logit-normal, 15 % uniform, 5 % exactly 0; stratified over the batch."""
    strata = torch.randperm(num_items, generator=generator)
    u = (strata + torch.rand(num_items, generator=generator)) / num_items  # (B,) in [0, 1)
    logit_normal = torch.sigmoid(math.sqrt(2.0) * torch.erfinv(2 * u.clamp(1e-4, 1 - 1e-4) - 1))
    draw = torch.rand(num_items, generator=generator)
    t = torch.where(draw < 0.8, logit_normal, u)
    return torch.where(draw >= 0.95, 0.0, t)


def voiced_frames(x1: Tensor, frame_mask: Tensor, log_floor: float) -> Tensor:
    """(B, T) bool: real frames whose mean band lies 1.5 nats above the floor.

    Args:
        x1: (B, T, M) log-mel in nats.
        frame_mask: (B, T) bool, True = real.
        log_floor: the floor in nats.
    """
    return frame_mask & (x1.mean(dim=-1) > log_floor + 1.5)


def dual_supervision(
    f: Callable[[Tensor, int], Tensor],
    states: Tensor,
    num_steps: int,
    k: int,
    tau: float,
    frame_mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Endpoint loss and mean-velocity loss of a student against a teacher's trajectory.

    Args:
        f: (x (B, T, M), step k) -> the student's velocity at step k of `num_steps`.
        states: (K + 1, B, T, M) of the teacher at 0, 1/K, ..., 1.
        num_steps: n, a divisor of K.
        k: the segment of the velocity loss.
        tau: where on the chord of the segment it is taken, 0 = at its start.
        frame_mask: (B, T) bool, True = real.

    Returns:
        mean |y(n) - e|^2 after n Euler steps of the student from the noise, and the mean over
        frames of |f(q; n, k) - u[n, k]|^2 with q = (1 - tau) x(k/n) + tau x((k+1)/n).

    Source: StepFlow (DSFlow), arXiv 2602.09041, dual supervision.
    """
    first, y = roll_out(f, states[0], num_steps)
    ends = states[:: (len(states) - 1) // num_steps]  # (n + 1, B, T, M)
    known = tau == 0 and k == 0  # the roll-out has just evaluated it
    v = first if known else f(torch.lerp(ends[k], ends[k + 1], tau), k)
    target = num_steps * (ends[k + 1] - ends[k])
    return all_bands(y - states[-1], frame_mask), all_bands(v - target, frame_mask)


def endpoint_distillation(
    f: Callable[[Tensor, int], Tensor], states: Tensor, num_steps: int, frame_mask: Tensor
) -> Tensor:
    """The endpoint loss of `dual_supervision` alone; the arguments are those of the same name."""
    return all_bands(roll_out(f, states[0], num_steps)[1] - states[-1], frame_mask)


def weak_guidance(unconditional: Tensor, conditional: Tensor, frame_mask: Tensor) -> Tensor:
    """How far the velocity without a condition is from the one with it, which gets no gradient.

    Args:
        unconditional: (B, T, M) velocities without text and voice.
        conditional: (B, T, M) velocities with them.
        frame_mask: (B, T) bool, True = real.
    """
    return all_bands(unconditional.float() - conditional.detach(), frame_mask)


def to_endpoint(f: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor) -> Tensor:
    """x_t + (1 - t) f(x_t, t): the endpoint, in one step from any time; at t = 1 it is x_t itself.

    That identity is the boundary condition of consistency models, here by construction.

    Args:
        f: (x (B, T, M), t (B,)) -> velocity.
        x_t: (B, T, M).
        t: (B,) flow times in [0, 1].
    """
    return x_t + (1 - t)[:, None, None] * f(x_t, t)


def consistency_distillation(
    student: Callable[[Tensor, Tensor], Tensor],
    target: Callable[[Tensor, Tensor], Tensor],
    teacher: Callable[[Tensor, Tensor], Tensor],
    x_t: Tensor,
    times: tuple[Tensor, Tensor],
    frame_mask: Tensor,
) -> Tensor:
    """How far the student's endpoint of x_t is from the target's, one Euler step of the teacher on.

    Args:
        student: (x (B, T, M), t (B,)) -> velocity; it alone gets a gradient.
        target: the same, of the student's slow average.
        teacher: the same, guided.
        x_t: (B, T, M) on the teacher's path.
        times: (B,) each; where x_t is, and where the teacher's step ends, at most 1.
        frame_mask: (B, T) bool, True = real.

    Source: Song et al. 2023, arXiv 2303.01469, algorithm 2, with a velocity for a network.
    """
    t, t_next = times
    with torch.no_grad():
        x_next = x_t + (t_next - t)[:, None, None] * teacher(x_t, t)
        wanted = to_endpoint(target, x_next, t_next)
    return all_bands(to_endpoint(student, x_t, t) - wanted, frame_mask)


def all_bands(difference: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean square of (B, T, M) over the real frames of (B, T)."""
    bands = torch.ones_like(difference[:, 0], dtype=torch.bool)  # (B, M)
    return masked_mean_square(difference, frame_mask, bands)


def roll_out(
    f: Callable[[Tensor, int], Tensor], noise: Tensor, num_steps: int
) -> tuple[Tensor, Tensor]:
    """The first velocity, and the endpoint after `num_steps` Euler steps of the student from `noise`."""
    first = f(noise, 0)
    y = noise + first / num_steps
    for step in range(1, num_steps):
        y = y + f(y, step) / num_steps
    return first, y
