"""The blocks that every network here is built from."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Modulation(NamedTuple):
    """What adaLN does around one branch; each (B, 1, D) or (1, 1, D)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class BlockModulation(NamedTuple):
    """The modulation of a block's two branches."""

    attention: Modulation
    feed_forward: Modulation


class KeysValues(NamedTuple):
    """What other tokens may attend to; each (B, H, N, D / H), keys already rotated."""

    keys: Tensor
    values: Tensor


class Rotation(NamedTuple):
    """Cosines and sines of rotary positions; each (N, D / H / 2)."""

    cos: Tensor
    sin: Tensor


def block_modulation(rows: Tensor) -> BlockModulation:
    """Names for six rows (..., 6, D): shift, scale, gate of attention, then of feed-forward."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows.unsqueeze(-3).unbind(-2)
    return BlockModulation(
        Modulation(shift_a, scale_a, gate_a), Modulation(shift_f, scale_f, gate_f)
    )


def rotation(num_tokens: int, head_dim: int, offset: int, device: torch.device) -> Rotation:
    """Rotary tables for the positions offset, offset + 1, ... Source: RoFormer, arXiv 2104.09864."""
    frequencies = 10000.0 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)  # (D/H/2,)
    positions = torch.arange(offset, offset + num_tokens, device=device)  # (N,)
    angles = positions[:, None] * frequencies  # (N, D/H/2)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, table: Rotation) -> Tensor:
    """(B, H, N, D / H) with its two halves turned by the table's angles."""
    a, b = x.chunk(2, dim=-1)  # each (B, H, N, D/H/2)
    return torch.cat((a * table.cos - b * table.sin, b * table.cos + a * table.sin), dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax attention of (B, H, N, D / H) over (B, H, Nk, D / H); key_mask (B, 1, 1, Nk), True = seen.

    While training on a CPU as plain products: the fused kernel's backward costs twice as much there.
    """
    if not (torch.is_grad_enabled() and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, N, Nk)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, torch.finfo(scores.dtype).min)
    attended: Tensor = scores.softmax(dim=-1) @ v
    return attended


def modulated_norm(x: Tensor, modulation: Modulation) -> Tensor:
    """LayerNorm of (B, N, D) without parameters, then scale and shift."""
    x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(modulation.shift, x, 1 + modulation.scale)


class DiTBlock(nn.Module):
    """Attention and feed-forward, both pre-normed and gated by a modulation given from outside."""

    def __init__(self, dim: int, num_heads: int, ff_mult: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.ff_in = nn.Linear(dim, ff_mult * dim)
        self.ff_out = nn.Linear(ff_mult * dim, dim)

    def forward(
        self,
        x: Tensor,
        modulation: BlockModulation,
        table: Rotation,
        context: KeysValues | None = None,
        key_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """The stream after this block, and its own keys and values.

        Args:
            x: (B, N, D).
            modulation: shift, scale and gate of both branches.
            table: rotary tables of the N positions.
            context: keys and values of Nc other tokens, which come before the stream's own.
            key_mask: (B, 1, 1, Nc + N) bool, True = may be attended to.

        Returns:
            (B, N, D), and the stream's keys and values without the context's.
        """
        q, k, v = self._project(modulated_norm(x, modulation.attention))  # each (B, H, N, D/H)
        q, k = rotate(q, table), rotate(k, table)
        own = KeysValues(k, v)
        if context is not None:
            k = torch.cat(
                (context.keys.expand(x.shape[0], -1, -1, -1), k), dim=2
            )  # (B, H, Nc + N, D/H)
            v = torch.cat((context.values.expand(x.shape[0], -1, -1, -1), v), dim=2)
        attended = attention(q, k, v, key_mask)  # (B, H, N, D/H)
        attended = self.attention_out(attended.transpose(1, 2).flatten(2))  # (B, N, D)
        x = torch.addcmul(x, modulation.attention.gate, attended)
        hidden = self.ff_in(modulated_norm(x, modulation.feed_forward))  # (B, N, ff)
        fed = self.ff_out(F.gelu(hidden, approximate="tanh"))  # (B, N, D)
        return torch.addcmul(x, modulation.feed_forward.gate, fed), own

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, H, N, D / H)."""
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (3, B, H, N, D/H)
        return q, k, v


class LocalMix(nn.Module):
    """A residual depthwise convolution: neighbours in time mixed before attention sees them."""

    def __init__(self, dim: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D); padding must be zero on the way in."""
        return x + F.gelu(self.conv(x.transpose(1, 2)), approximate="tanh").transpose(1, 2)
