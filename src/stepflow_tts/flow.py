"""Flow matching as pure functions over a callable; no network in sight.

Flow time t runs from 0 (noise) to 1 (data); `velocity` = data - noise. Nothing here changes its arguments.
Source: Lipman et al. 2023 (arXiv 2210.02747); guidance as in Ho and Salimans 2022 (arXiv 2207.12598).
"""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""(x_t of any shape, t in [0, 1)) -> velocity of the same shape."""


def path(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) noise + t data, for t that broadcasts against both."""
    return torch.lerp(noise, data, t)


def guide(conditional: Tensor, unconditional: Tensor, cfg_strength: float) -> Tensor:
    """v_c + w (v_c - v_0); w = 0 is no guidance."""
    return conditional + cfg_strength * (conditional - unconditional)


def time_grid(num_steps: int) -> list[float]:
    """The num_steps + 1 times 0, 1/n, ..., 1 of uniform steps."""
    return [k / num_steps for k in range(num_steps + 1)]


def euler_states(velocity: Velocity, noise: Tensor, grid: list[float]) -> Iterator[Tensor]:
    """The states at every time of `grid`, the noise itself first, by Euler's method."""
    x = noise
    yield x
    for t, t_next in itertools.pairwise(grid):
        x = x + (t_next - t) * velocity(x, t)
        yield x


def euler(velocity: Velocity, noise: Tensor, grid: list[float]) -> Tensor:
    """The endpoint: the state at the last time of `grid`."""
    x = noise
    for x in euler_states(velocity, noise, grid):  # noqa: B007
        pass
    return x


def segment_mean_velocities(states: Tensor, num_steps: int) -> Tensor:
    """u[n, k] = n (x((k+1)/n) - x(k/n)) for every segment k of n.

    Args:
        states: (K + 1, ...) states at 0, 1/K, ..., 1, where K is a multiple of `num_steps`.
        num_steps: n, how many segments the unit interval has.

    Returns:
        (n, ...) mean velocities; their mean is the endpoint minus the noise.
    """
    stride, remainder = divmod(states.shape[0] - 1, num_steps)
    if remainder or stride == 0:
        raise ValueError(f"{states.shape[0] - 1} intervals cannot be cut into {num_steps} segments")
    return num_steps * states[::stride].diff(dim=0)
