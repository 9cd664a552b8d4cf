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
    bands = torch.ones_like(states[0, :, 0], dtype=torch.bool)  # (B, M)
    first = f(states[0], 0)
    y = states[0] + first / num_steps
    for step in range(1, num_steps):
        y = y + f(y, step) / num_steps
    endpoint = masked_mean_square(y - states[-1], frame_mask, bands)
    ends = states[:: (len(states) - 1) // num_steps]  # (n + 1, B, T, M)
    known = tau == 0 and k == 0  # the roll-out has just evaluated it
    v = first if known else f(torch.lerp(ends[k], ends[k + 1], tau), k)
    target = num_steps * (ends[k + 1] - ends[k])
    return endpoint, masked_mean_square(v - target, frame_mask, bands)
