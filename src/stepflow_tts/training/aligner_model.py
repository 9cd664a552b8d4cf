"""The frame classifier behind `align`: which symbol is spoken in each mel frame."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepflow_tts.text.tokenizer import BOS, EOS

PAUSE = 0  # class of silent frames, in whichever token they lie; the place of <bos> in the symbols
NUM_BANDS = 82  # the bands below 8 kHz: most recordings have nothing above
LOG_FLOOR = -6.9  # ln 1e-3; below is digital silence, which recordings never show
STRESS = "ˈˌ"
OPTIONAL_MARKS = STRESS + "ːˑʰʲʷ\u0329\u032a\u0303"
PUNCTUATION = ";:,.!?¡¿—…\"“”()-'"


def can_pause(symbol: str) -> bool:
    """Whether silence may lie in the symbol: begin, end, space and punctuation."""
    return symbol in (BOS, EOS, " ") or symbol in PUNCTUATION


def is_optional(symbol: str) -> bool:
    """Whether the symbol may have no frame at all: whatever is not a phone."""
    return can_pause(symbol) or symbol in OPTIONAL_MARKS


class Aligner(nn.Module):
    """Dilated convolutions that name the symbol of each frame; they see 0.5 s around it."""

    def __init__(self, num_classes: int, dim: int = 192) -> None:
        """Build layers for `num_classes` classes, one for each symbol of a tokenizer."""
        super().__init__()
        dilations = (1, 2, 4, 8, 8, 2, 1)  # 2 + 2 * 26 frames each side, about 0.55 s in all
        self.stem = nn.Conv1d(NUM_BANDS, dim, 5, padding=2)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in dilations)
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=d, dilation=d) for d in dilations)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_classes))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits (B, T, classes) of each frame.

        Args:
            log_mel: (B, T, M) in nats; the bands above 8 kHz are not looked at.
        """
        x = (log_mel[:, :, :NUM_BANDS].clamp(min=LOG_FLOOR) + 3.0) / 2.0  # (B, T, 82)
        x = self.stem(x.transpose(1, 2))  # (B, D, T)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + F.gelu(conv(norm(x.transpose(1, 2)).transpose(1, 2)))  # (B, D, T)
        logits: Tensor = self.head(x.transpose(1, 2))  # (B, T, classes)
        return logits


@torch.no_grad()
def log_posteriors(model: Aligner, log_mel: Tensor) -> Tensor:
    """Log-probabilities (T, classes) of each frame of one utterance (T, M)."""
    return torch.log_softmax(model(log_mel[None])[0], dim=-1)
