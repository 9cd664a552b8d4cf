"""Where a network is in time: the teacher's MLPs, or the student's step-aware tokens.

Both give a `StepState`, and the blocks cannot tell which of the two it came from.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepflow_tts.config import ModelConfig
from stepflow_tts.models.layers import BlockModulation, block_modulation


class StepState(NamedTuple):
    """What the trunk needs to know about the step."""

    token: Tensor | None  # (D,) added to every target token; None for the teacher
    blocks: list[BlockModulation]  # one a layer


class StepIndex(NamedTuple):
    """Step k of num_steps."""

    num_steps: int
    k: int


def _rows(num_layers: int, dim: int, gate: float) -> Tensor:
    """(layers, 6, D): shifts and scales zero, gates as given."""
    rows = torch.zeros(num_layers, 6, dim)
    rows[:, 2::3] = gate
    return rows


class ConstantConditioning(nn.Module):
    """Learned rows that depend on nothing: those of the text encoder and of the voice stream."""

    def __init__(self, num_layers: int, dim: int, gate: float) -> None:
        super().__init__()
        self.rows = nn.Parameter(_rows(num_layers, dim, gate))  # (layers, 6, D)

    def forward(self) -> list[BlockModulation]:
        """One modulation a layer, each part (1, 1, D)."""
        return [block_modulation(r) for r in self.rows.unsqueeze(1)]


class TimeConditioning(nn.Module):
    """adaLN-Zero: a time MLP, and in every layer a linear to shift, scale and gate twice.

    Source: DiT, arXiv 2212.09748.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.time_dim = config.time_dim
        self.mlp = nn.Sequential(nn.Linear(config.time_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        linears = [nn.Linear(dim, 6 * dim) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(linears)
        for linear in linears:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, t: Tensor) -> StepState:
        """The state at flow times t (B,) in [0, 1]."""
        half = self.time_dim // 2
        steps = torch.arange(half, device=t.device) / (half - 1)
        angles = 1000 * t[:, None] * torch.exp(-math.log(10000.0) * steps)  # (B, time_dim / 2)
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)  # (B, time_dim)
        hidden = F.silu(self.mlp(features))  # (B, D)
        blocks = [block_modulation(b(hidden).unflatten(-1, (6, -1))) for b in self.blocks]
        return StepState(None, blocks)


class StepConditioning(nn.Module):
    """Step-aware tokens: lookups by (n, k), no MLP anywhere.

    `token`: one D-vector for every (n, k), added to the input tokens, and one row of constants a layer.
    `table`: a row of constants a layer for every (n, k).
    """

    def __init__(
        self, config: ModelConfig, num_steps: tuple[int, ...], variant: Literal["token", "table"]
    ) -> None:
        super().__init__()
        self.index = {StepIndex(n, k): i for i, (n, k) in enumerate(step_indices(num_steps))}
        self.variant = variant
        num_rows = len(self.index) if variant == "table" else 1
        rows = _rows(config.num_layers, config.dim, gate=0.0)
        self.rows = nn.Parameter(rows.expand(num_rows, -1, -1, -1).clone())  # (rows, layers, 6, D)
        if variant == "token":
            self.tokens = nn.Parameter(torch.zeros(len(self.index), config.dim))

    def forward(self, step: StepIndex) -> StepState:
        """The state of step k of n."""
        i = self.index[step]
        token = self.tokens[i] if self.variant == "token" else None
        row = i if self.variant == "table" else 0
        blocks = [block_modulation(r) for r in self.rows[row].unsqueeze(1)]  # each part (1, 1, D)
        return StepState(token, blocks)

    @torch.no_grad()
    def start_from(self, teacher: TimeConditioning) -> None:
        """Take the teacher's modulation: at t = 0 for `token`, at t = k / n for `table`."""
        device = self.rows.device
        for step, i in self.index.items():
            if self.variant == "token" and step.k > 0:
                continue
            state = teacher(torch.tensor([step.k / step.num_steps], device=device))
            row = i if self.variant == "table" else 0
            for layer, block in enumerate(state.blocks):
                parts = (*block.attention, *block.feed_forward)
                self.rows[row, layer] = torch.stack([p[0, 0] for p in parts])


def step_indices(num_steps: tuple[int, ...]) -> list[StepIndex]:
    """Every (n, k): (1, 0), (2, 0), (2, 1), (4, 0), ... in the order of the tables."""
    return [StepIndex(n, k) for n in num_steps for k in range(n)]
