"""The blocks of every network, against attention written out and cases by hand."""

import math

import pytest
import torch
from torch import Tensor

from stepflow_tts.models.layers import (
    BlockModulation,
    DiTBlock,
    KeysValues,
    LocalMix,
    Modulation,
    Rotation,
    attention,
    block_modulation,
    modulated_norm,
    rotate,
    rotation,
)

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_modulation(dim: int, seed: int = 5) -> BlockModulation:
    return block_modulation(draw(1, 6, dim, seed=seed))


def make_block(dim: int = 8, num_heads: int = 2) -> DiTBlock:
    block = DiTBlock(dim, num_heads, 2)
    with torch.no_grad():
        for seed, parameter in enumerate(block.parameters()):
            parameter.copy_(0.4 * draw(*parameter.shape, seed=seed))
    return block


def test_six_rows_are_shift_scale_gate_of_attention_then_of_feed_forward() -> None:
    rows = torch.arange(6.0)[None, :, None].expand(2, 6, 4)  # row i is filled with i
    attention, feed_forward = block_modulation(rows)
    assert [p.unique().tolist() for p in attention] == [[0.0], [1.0], [2.0]]
    assert [p.unique().tolist() for p in feed_forward] == [[3.0], [4.0], [5.0]]
    assert attention.shift.shape == (2, 1, 4)


def test_rotation_turns_the_halves_by_the_position() -> None:
    x = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2)
    turned = rotate(x, rotation(3, 2, 5, CPU))[0, 0]
    expected = [[math.cos(p), math.sin(p)] for p in (5, 6, 7)]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_frequencies_fall_from_1_towards_1_in_10000() -> None:
    table = rotation(2, 8, 0, CPU)
    angles = torch.atan2(table.sin[1], table.cos[1])
    torch.testing.assert_close(angles, torch.tensor([1.0, 0.1, 0.01, 0.001]))


def test_scores_depend_on_the_distance_of_positions_alone() -> None:
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def score(at_q: int, at_k: int) -> float:
        return (
            (rotate(q, rotation(1, 8, at_q, CPU)) * rotate(k, rotation(1, 8, at_k, CPU)))
            .sum()
            .item()
        )

    assert score(7, 3) == pytest.approx(score(516, 512), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(3, 7), abs=1e-2)


def test_modulated_norm_by_hand() -> None:
    x = torch.tensor([[[1.0, 3.0]]])  # normed to -1, 1
    shift, scale = torch.tensor([10.0, 20.0]), torch.tensor([0.5, -3.0])
    out = modulated_norm(x, Modulation(shift, scale, torch.zeros(2)))
    torch.testing.assert_close(out, torch.tensor([[[10 - 1.5, 20 - 2.0]]]), rtol=1e-5, atol=1e-5)


def test_a_block_whose_gates_are_zero_changes_nothing() -> None:
    rows = draw(1, 6, 8)
    rows[:, 2::3] = 0.0
    x = draw(2, 5, 8, seed=1)
    out, _ = make_block()(x, block_modulation(rows), rotation(5, 4, 0, CPU))
    assert torch.equal(out, x)


def attention_by_hand(block: DiTBlock, x: Tensor, m: Modulation, table: Rotation) -> Tensor:
    """One head at a time, softmax written out: (1, N, D)."""
    _, n, d = x.shape
    size = d // block.num_heads
    q, k, v = (modulated_norm(x, m) @ block.qkv.weight.T + block.qkv.bias).split(d, dim=-1)
    heads = []
    for h in range(block.num_heads):
        part = slice(h * size, (h + 1) * size)
        q_h, k_h = (rotate(y[:, None, :, part], table)[0, 0] for y in (q, k))
        scores = (q_h @ k_h.T / math.sqrt(size)).exp()
        heads.append(scores / scores.sum(-1, keepdim=True) @ v[0, :, part])
    return torch.cat(heads, dim=-1).view(1, n, d)


def test_a_block_against_attention_and_feed_forward_written_out() -> None:
    block, x, m = make_block(), draw(1, 5, 8), some_modulation(8)
    table = rotation(5, 4, 3, CPU)
    out, _ = block(x, m, table)
    attended = attention_by_hand(block, x, m.attention, table)
    y = x + m.attention.gate * (attended @ block.attention_out.weight.T + block.attention_out.bias)
    hidden = modulated_norm(y, m.feed_forward) @ block.ff_in.weight.T + block.ff_in.bias
    cube = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    hidden = 0.5 * hidden * (1 + torch.tanh(cube))
    expected = y + m.feed_forward.gate * (hidden @ block.ff_out.weight.T + block.ff_out.bias)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_context_is_what_comes_before_in_one_longer_sequence() -> None:
    block, m = make_block(), some_modulation(8)
    whole = draw(2, 9, 8)
    first, rest = whole[:, :4], whole[:, 4:]
    _, context = block(first, m, rotation(4, 4, 0, CPU))
    together, together_kv = block(whole, m, rotation(9, 4, 0, CPU))
    apart, own = block(rest, m, rotation(5, 4, 4, CPU), context)
    torch.testing.assert_close(apart, together[:, 4:])
    torch.testing.assert_close(own.keys, together_kv.keys[:, :, 4:])  # the context's are left out
    torch.testing.assert_close(own.values, together_kv.values[:, :, 4:])


def test_one_context_serves_a_whole_batch() -> None:
    block, m, table = make_block(), some_modulation(8), rotation(5, 4, 512, CPU)
    context = KeysValues(draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1))
    x = draw(3, 5, 8)
    out, _ = block(x, m, table, context)
    for i in range(3):
        alone, _ = block(x[i : i + 1], m, table, context)
        torch.testing.assert_close(out[i : i + 1], alone)


def test_masked_keys_have_no_influence_and_real_ones_do() -> None:
    block, m, table = make_block(), some_modulation(8), rotation(5, 4, 0, CPU)
    mask = torch.tensor([True, True, True, False, False])[None, None, None]
    x = draw(1, 5, 8)
    changed = x.clone()
    changed[:, 3:] = draw(1, 2, 8, seed=9)
    out, other = (block(y, m, table, key_mask=mask)[0][:, :3] for y in (x, changed))
    assert torch.equal(out, other)
    changed = x.clone()
    changed[:, 2] = draw(1, 8, seed=9)
    assert not torch.allclose(block(changed, m, table, key_mask=mask)[0][:, :2], out[:, :2])


def test_local_mix_is_the_input_and_three_neighbours_on_each_side() -> None:
    mix = LocalMix(2)
    with torch.no_grad():
        mix.conv.weight.fill_(1.0)
        mix.conv.bias.zero_()
    x = torch.zeros(1, 11, 2)
    x[0, 5, 0] = 3.0
    out = mix(x)[0]
    reached = [0.0] * 2 + [3.0] * 7 + [0.0] * 2
    expected = torch.nn.functional.gelu(torch.tensor(reached), approximate="tanh")
    expected[5] += 3.0
    torch.testing.assert_close(out[:, 0], expected)
    assert out[:, 1].abs().max() == 0  # channels do not mix


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_training_equals_that_of_inference(masked: bool) -> None:
    q, k, v = draw(2, 3, 5, 4), draw(2, 3, 7, 4, seed=1), draw(2, 3, 7, 4, seed=2)
    mask = torch.tensor([[True] * 7, [True, False] * 3 + [True]])[:, None, None] if masked else None
    with torch.no_grad():
        fused = attention(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask), fused)
    assert masked is not torch.allclose(fused[1], attention(q, k, v, None)[1])
