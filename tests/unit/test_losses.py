"""Losses on cases small enough to do by hand."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from stepflow_tts.training.losses import (
    consistency_distillation,
    dual_supervision,
    duration_loss,
    endpoint_distillation,
    masked_mean_square,
    sample_times,
    to_endpoint,
    voiced_frames,
    weak_guidance,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masked_mean_square_counts_real_cells_alone() -> None:
    difference = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    frames = torch.tensor([[True, True], [True, False]])
    bands = torch.tensor([[True, True], [True, False]])
    # first item: 1 + 4 + 9 + 16; second: 25 alone
    assert masked_mean_square(difference, frames, bands).item() == pytest.approx(55 / 5)


def test_masked_mean_square_is_zero_where_nothing_is_real() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    value = masked_mean_square(torch.full((1, 2, 3), 7.0), nothing, torch.ones(1, 3).bool())
    assert value.item() == 0.0


def test_duration_loss_by_hand() -> None:
    predicted = torch.tensor([[math.log(2), 1.0, 9.0], [0.5, 0.0, 9.0]])
    durations = torch.tensor([[1, 0, 4], [0, 0, 4]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    # errors 0, 1 and 0.5
    assert duration_loss(predicted, durations, mask).item() == pytest.approx(1.25 / 3)


def test_a_batch_whose_every_text_was_dropped_has_no_duration_loss() -> None:
    predicted = torch.ones(2, 3, requires_grad=True)
    loss = duration_loss(predicted, torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[0.0] * 3] * 2


def test_a_twentieth_of_the_times_is_0_and_the_rest_lies_inside() -> None:
    t = sample_times(40_000, generator(0))
    zero = t == 0
    assert zero.float().mean().item() == pytest.approx(0.05, abs=0.005)
    assert t.min() >= 0
    assert t.max() <= 1
    # 80 % logit-normal and 15 % uniform: P(t < 0.1) and P(t < 0.5) without the zeros
    normal = NormalDist()
    for border in (0.1, 0.5, 0.8):
        share = 0.8 * normal.cdf(math.log(border / (1 - border))) + 0.15 * border
        assert (t[~zero] < border).sum().item() / 40_000 == pytest.approx(share, abs=0.006)


def test_times_are_spread_evenly_over_a_batch() -> None:
    """One draw a stratum: the mean of a batch strays far less than that of free draws (0.21 / 4)."""
    means = torch.tensor([sample_times(16, generator(s)).mean() for s in range(400)])
    free = sample_times(6400, generator(0)).view(400, 16).mean(1)  # shuffled over 6400 strata
    assert free.std().item() == pytest.approx(0.0575, abs=0.006)
    assert means.std().item() < 0.75 * free.std().item()


def test_each_stratum_holds_one_time() -> None:
    """Told apart by the draws themselves: strata, places inside them, then which kind."""
    n, g = 64, generator(5)
    strata = torch.randperm(n, generator=g)
    u = ((strata + torch.rand(n, generator=g)) / n).tolist()
    kinds = torch.rand(n, generator=g).tolist()
    expected = []
    for place, kind in zip(u, kinds, strict=True):
        z = NormalDist().inv_cdf(min(max(place, 1e-4), 1 - 1e-4))
        expected.append(1 / (1 + math.exp(-z)) if kind < 0.8 else place if kind < 0.95 else 0.0)
    torch.testing.assert_close(
        sample_times(n, generator(5)), torch.tensor(expected), rtol=1e-4, atol=1e-5
    )


def test_voiced_frames_are_real_and_above_the_floor() -> None:
    x1 = torch.tensor([[[-4.0, -6.0], [-6.0, -6.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert voiced_frames(x1, mask, -7.0).tolist() == [[True, False, False]]


# Five states of one item with two frames of three bands; the second frame is padding.
STATES = torch.tensor(
    [
        [[[0.0, 1.0, -1.0], [9.0, 9.0, 9.0]]],
        [[[1.0, 1.0, -1.0], [7.0, 1.0, 2.0]]],
        [[[3.0, 1.0, -2.0], [0.0, 5.0, 1.0]]],
        [[[4.0, 0.0, -2.0], [2.0, 2.0, 2.0]]],
        [[[6.0, 0.0, -3.0], [4.0, 4.0, 4.0]]],
    ]
)
MASK = torch.tensor([[True, False]])


def test_one_step_by_hand() -> None:
    """f = 2 everywhere: y = (2, 3, 1) against (6, 0, -3); u = (6, -1, -2)."""

    def f(x: Tensor, k: int) -> Tensor:
        assert k == 0
        return torch.full_like(x, 2.0)

    endpoint, velocity = dual_supervision(f, STATES, 1, 0, 0.25, MASK)
    assert endpoint.item() == pytest.approx((16 + 9 + 16) / 3)
    assert velocity.item() == pytest.approx((16 + 9 + 16) / 3)


def test_two_steps_by_hand() -> None:
    """f(x, k) = x + k from (0, 1, -1): y = (0, 1.5, -1.5), then (0.5, 2.75, -1.75)."""
    seen = []

    def f(x: Tensor, k: int) -> Tensor:
        seen.append((x[0, 0].tolist(), k))
        return x + k

    endpoint, velocity = dual_supervision(f, STATES, 2, 1, 0.5, MASK)
    assert seen == [
        ([0.0, 1.0, -1.0], 0),
        ([0.0, 1.5, -1.5], 1),
        ([4.5, 0.5, -2.5], 1),  # q: half way between the third and the last state
    ]
    assert endpoint.item() == pytest.approx((5.5**2 + 2.75**2 + 1.25**2) / 3)
    # u[2, 1] = 2 (6 - 3, 0 - 1, -3 + 2) = (6, -2, -2) against q + 1 = (5.5, 1.5, -1.5)
    assert velocity.item() == pytest.approx((0.5**2 + 3.5**2 + 0.5**2) / 3)


def test_the_velocity_loss_of_a_first_segment_at_tau_0_reuses_the_roll_out() -> None:
    calls = []

    def f(x: Tensor, k: int) -> Tensor:
        calls.append(k)
        return x

    _, velocity = dual_supervision(f, STATES, 4, 0, 0.0, MASK)
    assert calls == [0, 1, 2, 3]
    # u[4, 0] = 4 (1, 0, 0) against (0, 1, -1)
    assert velocity.item() == pytest.approx((16 + 1 + 1) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_at_one_step_and_tau_0_both_losses_coincide(seed: int) -> None:
    g = generator(seed)
    states = torch.randn(5, 2, 6, 4, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 4, generator=g, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    endpoint, velocity = dual_supervision(lambda x, k: x @ weight, states, 1, 0, 0.0, mask)
    torch.testing.assert_close(endpoint, velocity, rtol=1e-12, atol=0)
    _, elsewhere = dual_supervision(lambda x, k: x @ weight, states, 1, 0, 0.3, mask)
    assert abs(elsewhere - endpoint) > 1e-3


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_student_that_knows_the_mean_velocities_has_no_loss(n: int) -> None:
    states = torch.randn(5, 2, 6, 4, generator=generator(7), dtype=torch.float64)
    stride = 4 // n

    def f(x: Tensor, k: int) -> Tensor:
        return n * (states[(k + 1) * stride] - states[k * stride])

    for k in range(n):
        losses = dual_supervision(f, states, n, k, 0.4, torch.ones(2, 6, dtype=torch.bool))
        assert max(losses).item() < 1e-24


def test_the_endpoint_alone_by_hand() -> None:
    """f(x, k) = x + k from (0, 1, -1): y = (0, 1.5, -1.5), then (0.5, 2.75, -1.75)."""
    value = endpoint_distillation(lambda x, k: x + k, STATES, 2, MASK)
    assert value.item() == pytest.approx((5.5**2 + 2.75**2 + 1.25**2) / 3)


def test_weak_guidance_by_hand() -> None:
    v_0 = torch.tensor([[[1.0, 2.0, 3.0], [9.0, 9.0, 9.0]]], requires_grad=True)
    v_c = torch.tensor([[[0.0, 4.0, 3.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    value = weak_guidance(v_0, v_c, MASK)
    assert value.item() == pytest.approx((1 + 4 + 0) / 3)
    value.backward()  # type: ignore[no-untyped-call]
    assert v_0.grad is not None
    assert v_0.grad[0].tolist() == [pytest.approx([2 / 3, -4 / 3, 0.0]), [0.0, 0.0, 0.0]]
    assert v_c.grad is None


X_T = torch.tensor([[[1.0, -1.0, 2.0], [3.0, 0.0, 1.0]]])  # one item of two frames, three bands
ALL = torch.tensor([[True, True]])


def test_consistency_by_hand() -> None:
    """Teacher 2, so x at 0.75 is x + 0.5; target v = x, student v = 3, both to the end."""
    value = consistency_distillation(
        lambda x, t: torch.full_like(x, 3.0),
        lambda x, t: x,
        lambda x, t: torch.full_like(x, 2.0),
        X_T,
        (torch.tensor([0.5]), torch.tensor([0.75])),
        ALL,
    )
    # the student's endpoint is x + 1.5, the target's 1.25 (x + 0.5)
    errors = [(x + 1.5) - 1.25 * (x + 0.5) for x in (1.0, -1.0, 2.0, 3.0, 0.0, 1.0)]
    assert value.item() == pytest.approx(sum(e * e for e in errors) / 6)


def test_at_time_one_the_endpoint_is_where_one_is() -> None:
    """The boundary condition, whatever the network says; so the last step's target is the teacher's."""
    t = torch.tensor([1.0])
    assert torch.equal(to_endpoint(lambda x, t: x * 1e6 + 7, X_T, t), X_T)
    value = consistency_distillation(
        lambda x, t: torch.full_like(x, 3.0),
        lambda x, t: x * 1e6 + 7,
        lambda x, t: torch.full_like(x, 2.0),
        X_T,
        (torch.tensor([0.75]), t),
        ALL,
    )
    assert value.item() == pytest.approx((0.25 * (3 - 2)) ** 2, rel=1e-5)


def test_the_student_alone_learns_consistency() -> None:
    weights = [torch.ones(3, requires_grad=True) for _ in range(3)]
    student, target, teacher = (lambda x, t, w=w: w * x for w in weights)
    times = torch.tensor([0.0]), torch.tensor([0.5])
    value = consistency_distillation(student, target, teacher, X_T, times, ALL)
    value.backward()  # type: ignore[no-untyped-call]
    assert weights[0].grad is not None
    assert weights[0].grad.abs().min() > 0
    assert weights[1].grad is None
    assert weights[2].grad is None
