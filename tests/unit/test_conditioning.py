"""Time and step conditioning: lookups, zero starts, and the student's start from its teacher."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from stepflow_tts.config import preset
from stepflow_tts.models.conditioning import (
    ConstantConditioning,
    StepConditioning,
    StepIndex,
    StepState,
    TimeConditioning,
    step_indices,
)

CONFIG = preset("test")
STEPS = (1, 2, 4)
SEVEN = [(1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)]


def random_teacher() -> TimeConditioning:
    teacher = TimeConditioning(CONFIG)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return teacher


def rows_of(state: StepState) -> torch.Tensor:
    """(layers, 6, B, D)."""
    return torch.stack(
        [torch.stack([p[:, 0] for p in (*b.attention, *b.feed_forward)]) for b in state.blocks]
    )


def test_seven_steps_in_the_order_of_the_tables() -> None:
    assert [tuple(s) for s in step_indices(STEPS)] == SEVEN


def test_a_new_teacher_modulates_nothing() -> None:
    state = TimeConditioning(CONFIG)(torch.tensor([0.0, 0.3]))
    assert state.token is None
    assert len(state.blocks) == CONFIG.num_layers
    assert rows_of(state).abs().max() == 0  # gates too: every block starts as the identity


def test_time_reaches_the_rows_through_sinusoids_and_the_mlp() -> None:
    teacher = random_teacher()
    half = CONFIG.time_dim // 2
    t = 0.37
    angles = [1000 * t * 10000 ** (-i / (half - 1)) for i in range(half)]
    features = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
    first, second = teacher.mlp[0], teacher.mlp[2]
    hidden = F.silu(features @ first.weight.T + first.bias)
    hidden = F.silu(hidden @ second.weight.T + second.bias)
    got = rows_of(teacher(torch.tensor([t])))[:, :, 0]
    for layer, linear in enumerate(teacher.blocks):
        expected = (hidden @ linear.weight.T + linear.bias).view(6, CONFIG.dim)
        torch.testing.assert_close(got[layer], expected, rtol=1e-4, atol=1e-4)


def test_each_item_has_a_time_of_its_own() -> None:
    teacher = random_teacher()
    both = rows_of(teacher(torch.tensor([0.1, 0.9])))
    torch.testing.assert_close(both[:, :, :1], rows_of(teacher(torch.tensor([0.1]))))
    torch.testing.assert_close(both[:, :, 1:], rows_of(teacher(torch.tensor([0.9]))))
    assert (both[:, :, 0] - both[:, :, 1]).abs().max() > 0.1


def test_constant_rows_start_with_the_given_gate() -> None:
    conditioning = ConstantConditioning(3, 4, gate=0.25)
    for block in conditioning():
        for part in block:
            assert part.shift.tolist() == part.scale.tolist() == [[[0.0] * 4]]
            assert part.gate.tolist() == [[[0.25] * 4]]


def test_token_has_seven_vectors_and_one_set_of_rows() -> None:
    step = StepConditioning(CONFIG, STEPS, "token")
    assert {k: tuple(p.shape) for k, p in step.named_parameters()} == {
        "rows": (1, CONFIG.num_layers, 6, CONFIG.dim),
        "tokens": (7, CONFIG.dim),
    }
    with torch.no_grad():
        step.tokens.copy_(torch.arange(7.0)[:, None].expand(7, CONFIG.dim))
    found = [step(StepIndex(n, k)).token for n, k in SEVEN]
    assert [t[0].item() for t in found if t is not None] == [0, 1, 2, 3, 4, 5, 6]


def test_table_has_seven_sets_of_rows_and_no_vector() -> None:
    step = StepConditioning(CONFIG, STEPS, "table")
    assert {k: tuple(p.shape) for k, p in step.named_parameters()} == {
        "rows": (7, CONFIG.num_layers, 6, CONFIG.dim)
    }
    with torch.no_grad():
        step.rows.copy_(torch.arange(7.0)[:, None, None, None].expand_as(step.rows))
    for i, (n, k) in enumerate(SEVEN):
        state = step(StepIndex(n, k))
        assert state.token is None
        assert rows_of(state).unique().tolist() == [i]


@pytest.mark.parametrize("variant", ["token", "table"])
def test_a_new_student_has_closed_gates_and_no_token(variant: Literal["token", "table"]) -> None:
    step = StepConditioning(CONFIG, STEPS, variant)
    assert all(p.abs().max() == 0 for p in step.parameters())


def test_token_starts_from_the_teacher_at_0() -> None:
    teacher, step = random_teacher(), StepConditioning(CONFIG, STEPS, "token")
    step.start_from(teacher)
    at_0 = rows_of(teacher(torch.tensor([0.0])))
    for n, k in SEVEN:
        state = step(StepIndex(n, k))
        assert torch.equal(rows_of(state), at_0)
        assert state.token is not None
        assert state.token.abs().max() == 0


def test_table_starts_from_the_teacher_at_the_time_of_every_step() -> None:
    teacher, step = random_teacher(), StepConditioning(CONFIG, STEPS, "table")
    step.start_from(teacher)
    for n, k in SEVEN:
        assert torch.equal(
            rows_of(step(StepIndex(n, k))), rows_of(teacher(torch.tensor([k / n])))
        ), (n, k)
