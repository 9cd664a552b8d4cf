"""How long every token lasts: prediction, rounding, and spreading tokens over frames."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepflow_tts.config import ModelConfig

MAX_LOG_DURATION = math.log(1 + 200)  # about 2 s for one token; the corpus has none longer


class DurationPredictor(nn.Module):
    """log(1 + frames) of every token, from its encoding and the style."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.duration_dim
        self.input = nn.Linear(config.text_dim + config.style_dim, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.output = nn.Linear(width, 1)

    def forward(self, encoding: Tensor, style: Tensor, token_mask: Tensor | None) -> Tensor:
        """(B, L) log(1 + frames).

        Args:
            encoding: (B, L, text_dim); no gradient flows back into it.
            style: (B, style_dim).
            token_mask: (B, L) bool, True = real; None when nothing is padded.
        """
        style = style.unsqueeze(1).expand(-1, encoding.shape[1], -1)  # (B, L, S)
        x = self.input(torch.cat((encoding.detach(), style), dim=-1))  # (B, L, W)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if token_mask is not None:
                x = x * token_mask.unsqueeze(-1)
            x = norm(x + F.gelu(conv(x.transpose(1, 2))).transpose(1, 2))  # (B, L, W)
        log_durations: Tensor = self.output(x).squeeze(-1)  # (B, L)
        return log_durations


def round_durations(log_durations: Tensor, *, speed: float, minimum: Tensor) -> Tensor:
    """Whole frames for every token of one utterance, by cumulative rounding.

    Args:
        log_durations: (L,) log(1 + frames) at speed 1.
        speed: 2.0 = twice as fast.
        minimum: (L,) integers, the fewest frames each token may have.

    Returns:
        (L,) integers; errors of rounding do not add up over the utterance.
    """
    frames = torch.expm1(log_durations.double().clamp(0.0, MAX_LOG_DURATION)) / speed
    ends = frames.cumsum(0).round().long()  # (L,)
    durations = ends.diff(prepend=ends.new_zeros(1))
    return torch.maximum(durations, minimum)


def spread(
    encoding: Tensor, durations: Tensor, num_frames: int | None = None
) -> tuple[Tensor, Tensor]:
    """Each frame's token encoding, and where the frame is inside its token.

    Args:
        encoding: (B, L, E).
        durations: (B, L) integers, frames of every token, zero for padding.
        num_frames: T, at least the longest sum; None for just that.

    Returns:
        (B, T, E), and (B, T, POSITION_FEATURES); zeros after an item's end.
    """
    ends = durations.cumsum(1)  # (B, L)
    if num_frames is None:
        num_frames = int(ends[:, -1].max())
    frames = torch.arange(num_frames, device=encoding.device).expand(len(ends), -1).contiguous()
    token = torch.searchsorted(ends, frames, right=True)  # (B, T)
    inside = (token < ends.shape[1]).unsqueeze(-1)  # (B, T, 1)
    token = token.clamp(max=ends.shape[1] - 1)
    length = durations.gather(1, token)  # (B, T)
    offset = frames - (ends - durations).gather(1, token)  # (B, T), 0 ... length - 1
    taken = encoding.gather(1, token.unsqueeze(-1).expand(-1, -1, encoding.shape[-1]))  # (B, T, E)
    return taken * inside, _position_features(offset, length) * inside


POSITION_FEATURES = 6


def _position_features(offset: Tensor, length: Tensor) -> Tensor:
    """(B, T, 6): turns of the relative position, and the token's length."""
    length = length.clamp(min=1).float()
    p = math.pi * (offset + 0.5) / length  # 0 ... pi
    columns = (p.cos(), p.sin(), (2 * p).cos(), (2 * p).sin(), length.log1p() / 3, 1 / length)
    return torch.stack(columns, dim=-1)
