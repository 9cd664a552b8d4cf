"""Phoneme tokens and a voice's style to encodings, at token rate."""

from torch import Tensor, nn

from stepflow_tts.config import ModelConfig
from stepflow_tts.models.conditioning import ConstantConditioning
from stepflow_tts.models.layers import DiTBlock, rotation


class TextEncoder(nn.Module):
    """A transformer over phoneme tokens; the style vector is added to every embedding."""

    def __init__(self, config: ModelConfig, num_symbols: int) -> None:
        super().__init__()
        dim = config.text_dim
        self.head_dim = dim // config.text_heads
        self.embedding = nn.Embedding(num_symbols, dim)
        self.style = nn.Linear(config.style_dim, dim)
        self.conditioning = ConstantConditioning(config.text_layers, dim, gate=1.0)
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.text_heads, config.ff_mult) for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, token_ids: Tensor, style: Tensor, token_mask: Tensor | None) -> Tensor:
        """Encodings of the tokens.

        Args:
            token_ids: (B, L) integers.
            style: (B, style_dim).
            token_mask: (B, L) bool, True = real; None when nothing is padded.

        Returns:
            (B, L, text_dim).
        """
        x = self.embedding(token_ids) + self.style(style).unsqueeze(1)  # (B, L, E)
        table = rotation(x.shape[1], self.head_dim, 0, x.device)
        key_mask = None if token_mask is None else token_mask[:, None, None]  # (B, 1, 1, L)
        for block, modulation in zip(self.blocks, self.conditioning(), strict=True):
            x, _ = block(x, modulation, table, key_mask=key_mask)
        encoded: Tensor = self.norm(x)
        return encoded
