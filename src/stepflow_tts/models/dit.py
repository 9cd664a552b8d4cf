"""The trunk: voice tokens that see only each other, target tokens that see everything."""

import torch
from torch import Tensor, nn

from stepflow_tts.config import ModelConfig
from stepflow_tts.models.conditioning import ConstantConditioning, StepState
from stepflow_tts.models.layers import (
    DiTBlock,
    KeysValues,
    LocalMix,
    rotation,
)

TARGET_OFFSET = 512  # rotary position of the first target token; a voice of 8 s has 375


class DiT(nn.Module):
    """A diffusion transformer over two streams that share every matrix.

    Source: DiT, arXiv 2212.09748; the voice stream is constant in t, so that its keys and values
    can be computed once a voice.
    """

    def __init__(self, config: ModelConfig, n_mels: int) -> None:
        super().__init__()
        dim, patch = config.dim, config.patch_size
        self.patch_size = patch
        self.head_dim = dim // config.num_heads
        self.voice_in = nn.Linear(patch * n_mels, dim)
        self.target_in = nn.Linear(patch * (n_mels + config.text_dim), dim)
        self.streams = nn.Parameter(torch.zeros(2, dim))  # voice, target
        self.mix = LocalMix(dim)
        self.voice_conditioning = ConstantConditioning(config.num_layers, dim, gate=0.1)
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.num_heads, config.ff_mult) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, patch * n_mels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def encode_voice(self, reference: Tensor) -> tuple[KeysValues, ...]:
        """Keys and values of every layer for the reference (B, Tr, M), whose odd last frame is left out."""
        x = self.voice_in(self._patches(reference)) + self.streams[0]  # (B, Nv, D)
        x = self.mix(x)
        table = rotation(x.shape[1], self.head_dim, 0, x.device)
        kept = []
        for block, modulation in zip(self.blocks, self.voice_conditioning(), strict=True):
            x, own = block(x, modulation, table)
            kept.append(own)
        return tuple(kept)

    def forward(
        self,
        inputs: Tensor,
        state: StepState,
        voice: tuple[KeysValues, ...] | None,
        token_mask: Tensor | None,
        voice_mask: Tensor | None,
    ) -> Tensor:
        """Velocity of the target frames.

        Args:
            inputs: (B, T, M + E) noisy frames and their conditions; T a multiple of the patch size.
            state: the step's token and modulation.
            voice: every layer's keys and values of the voice; None for no voice.
            token_mask: (B, N) bool, True = real; None when nothing is padded.
            voice_mask: (B,) bool, True = this item hears its voice; None when all do.

        Returns:
            (B, T, M).
        """
        x = self.target_in(self._patches(inputs)) + self.streams[1]  # (B, N, D)
        if state.token is not None:
            x = x + state.token
        if token_mask is not None:
            x = x * token_mask.unsqueeze(-1)
        x = self.mix(x)
        num_voice = 0 if voice is None else voice[0].keys.shape[2]
        key_mask = _key_mask(x, num_voice, token_mask, voice_mask)
        table = rotation(x.shape[1], self.head_dim, TARGET_OFFSET, x.device)
        for layer, (block, modulation) in enumerate(zip(self.blocks, state.blocks, strict=True)):
            x, _ = block(x, modulation, table, None if voice is None else voice[layer], key_mask)
        out: Tensor = self.out(self.norm(x))  # (B, N, patch * M)
        return out.reshape(len(out), -1, out.shape[-1] // self.patch_size)  # (B, T, M)

    def _patches(self, frames: Tensor) -> Tensor:
        """(B, T, C) -> (B, T // patch, patch * C)."""
        num_tokens = frames.shape[1] // self.patch_size
        whole = frames[:, : num_tokens * self.patch_size]
        return whole.reshape(len(whole), num_tokens, -1)


def _key_mask(
    x: Tensor, num_voice: int, token_mask: Tensor | None, voice_mask: Tensor | None
) -> Tensor | None:
    """(B, 1, 1, Nv + N) bool, or None when every key is real."""
    if token_mask is None and voice_mask is None:
        return None
    batch, num_tokens, _ = x.shape
    voice = x.new_ones(batch, num_voice, dtype=torch.bool)
    if voice_mask is not None:
        voice = voice & voice_mask[:, None]
    target = x.new_ones(batch, num_tokens, dtype=torch.bool) if token_mask is None else token_mask
    return torch.cat((voice, target), dim=1)[:, None, None]
