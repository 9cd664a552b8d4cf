"""Paths, guidance and Euler's method against equations with known answers."""

import math

import pytest
import torch

from stepflow_tts import flow


def test_path_runs_from_noise_to_data() -> None:
    noise, data = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[5.0], [5.0], [5.0]])
    t = torch.tensor([[0.0], [0.25], [1.0]])
    assert flow.path(noise, data, t).tolist() == [[1.0], [2.0], [5.0]]


def test_time_grid_is_uniform_from_0_to_1() -> None:
    assert flow.time_grid(1) == [0.0, 1.0]
    assert flow.time_grid(4) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_euler_is_exact_on_a_constant_field() -> None:
    noise, field = torch.tensor([[0.5, -2.0]]), torch.tensor([[1.5, 4.0]])
    for num_steps in (1, 2, 4, 8):
        end = flow.euler(lambda x, t: field, noise, flow.time_grid(num_steps))
        assert torch.equal(end, noise + field)


def test_euler_is_exact_on_a_field_that_is_linear_in_time_up_to_its_left_sum() -> None:
    """x' = t from 0: n left rectangles give (n - 1) / 2n, so the time handed over is the left one."""
    zero = torch.zeros(3, dtype=torch.float64)
    for n in (1, 2, 5, 10):
        end = flow.euler(torch.full_like, zero, flow.time_grid(n))
        torch.testing.assert_close(end, torch.full_like(zero, (n - 1) / (2 * n)))


def test_euler_converges_at_first_order_on_exponential_growth() -> None:
    """x' = x: n steps give (1 + 1/n)^n, and ten times the steps leave a tenth of the error."""
    one = torch.ones(1, dtype=torch.float64)
    errors = []
    for n in (100, 1000):
        end = flow.euler(lambda x, t: x, one, flow.time_grid(n)).item()
        assert end == pytest.approx((1 + 1 / n) ** n, rel=1e-12)
        errors.append(math.e - end)
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.01)


def test_euler_states_are_those_of_the_grid_and_the_noise_stays_as_it_was() -> None:
    noise = torch.ones(2)
    states = list(flow.euler_states(lambda x, t: x, noise, [0.0, 0.5, 1.0]))
    assert [s.tolist() for s in states] == [[1.0, 1.0], [1.5, 1.5], [2.25, 2.25]]
    assert noise.tolist() == [1.0, 1.0]


def test_guidance() -> None:
    v_c, v_0 = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    assert torch.equal(flow.guide(v_c, v_0, 0.0), v_c)
    assert flow.guide(v_c, v_0, 0.5).tolist() == [2.5, -2.0]
    assert torch.equal(flow.guide(v_c, v_c, 0.7), v_c)


def test_mean_velocities_of_a_known_path() -> None:
    """x = t^2 has the mean velocity (t1^2 - t0^2) / (t1 - t0) = t0 + t1 on a segment."""
    states = torch.linspace(0, 1, 5)[:, None] ** 2
    assert flow.segment_mean_velocities(states, 1)[:, 0].tolist() == [1.0]
    assert flow.segment_mean_velocities(states, 2)[:, 0].tolist() == [0.5, 1.5]
    assert flow.segment_mean_velocities(states, 4)[:, 0].tolist() == [0.25, 0.75, 1.25, 1.75]


def test_mean_velocities_of_any_path_average_to_the_whole() -> None:
    states = torch.randn(5, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = {n: flow.segment_mean_velocities(states, n) for n in (1, 2, 4)}
    for n in (1, 2, 4):
        assert u[n].shape == (n, 3, 7)
        torch.testing.assert_close(u[n].mean(0), states[-1] - states[0])
    torch.testing.assert_close(u[1][0], u[2].mean(0))
    torch.testing.assert_close(u[1][0], u[4].mean(0))
    torch.testing.assert_close(u[2][1], u[4][2:].mean(0))


@pytest.mark.parametrize(("num_states", "num_steps"), [(5, 3), (4, 2), (2, 4)])
def test_segments_that_do_not_meet_the_states_are_refused(num_states: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"cannot be cut into {num_steps}"):
        flow.segment_mean_velocities(torch.zeros(num_states, 1), num_steps)
