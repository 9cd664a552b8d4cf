"""The acoustic model: text, durations and a voice to the velocity of normalized log-mels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepflow_tts.config import Conditioning, ModelConfig
from stepflow_tts.models.conditioning import StepConditioning, StepIndex, TimeConditioning
from stepflow_tts.models.dit import DiT
from stepflow_tts.models.duration import POSITION_FEATURES, DurationPredictor, spread
from stepflow_tts.models.layers import KeysValues
from stepflow_tts.models.text_encoder import TextEncoder


class VoiceContext(NamedTuple):
    """All that a voice adds to the network; computed once a voice and set of weights."""

    style: Tensor  # (B, style_dim)
    keys_values: tuple[KeysValues, ...] | None  # one a layer; None = no voice
    mask: Tensor | None = None  # (B,) bool, True = this item hears its voice; None = all do


class StyleEncoder(nn.Module):
    """An attention-pooled summary of a reference: one vector a voice."""

    def __init__(self, config: ModelConfig, n_mels: int, num_heads: int = 4) -> None:
        super().__init__()
        width = config.style_dim
        self.num_heads = num_heads
        self.conv_1 = nn.Conv1d(n_mels, width, 5, stride=2, padding=2)
        self.conv_2 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, num_heads)
        self.out = nn.Linear(width, width)

    def forward(self, reference: Tensor) -> Tensor:
        """(B, Tr, M) normalized log-mel -> (B, style_dim)."""
        x = F.gelu(self.conv_1(reference.transpose(1, 2)))  # (B, S, Tr / 2)
        x = self.norm(F.gelu(self.conv_2(x)).transpose(1, 2))  # (B, Tr / 4, S)
        weights = self.score(x).softmax(dim=1)  # (B, Tr / 4, H)
        heads = x.unflatten(-1, (self.num_heads, -1))  # (B, Tr / 4, H, S / H)
        pooled = torch.einsum("bth,bthd->bhd", weights, heads).flatten(1)  # (B, S)
        style: Tensor = self.out(pooled)
        return style


class AcousticModel(nn.Module):
    """Teacher or student; the two differ in `step` alone.

    Every log-mel here is normalized: (max(log_mel, ln floor) - mean) / std of the flow's config.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        conditioning: Conditioning,
        num_symbols: int,
        n_mels: int = 100,
        num_steps: tuple[int, ...] = (1, 2, 4),
    ) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.n_mels = n_mels
        self.style = StyleEncoder(config, n_mels)
        self.text = TextEncoder(config, num_symbols)
        self.durations = DurationPredictor(config)
        self.position = nn.Linear(POSITION_FEATURES, config.text_dim)
        self.dit = DiT(config, n_mels)
        self.step: TimeConditioning | StepConditioning
        if conditioning == "time":
            self.step = TimeConditioning(config)
        else:
            self.step = StepConditioning(config, num_steps, conditioning)
        self.null_style = nn.Parameter(torch.zeros(config.style_dim))
        self.null_condition = nn.Parameter(torch.zeros(config.text_dim))

    def encode_voice(self, reference: Tensor, mask: Tensor | None = None) -> VoiceContext:
        """The voice of a reference, to be computed once and used for any text.

        Args:
            reference: (B, Tr, M) normalized log-mel, 1 to 8 s, nothing padded.
            mask: (B,) bool, False = this item gets no voice at all (training); None = all do.
        """
        style = self.style(reference)
        if mask is not None:
            style = torch.where(mask[:, None], style, self.null_style)
        return VoiceContext(style, self.dit.encode_voice(reference), mask)

    def null_voice(self, batch_size: int) -> VoiceContext:
        """No voice, for guidance."""
        return VoiceContext(self.null_style.expand(batch_size, -1), None)

    def encode_text(
        self, token_ids: Tensor, voice: VoiceContext, token_mask: Tensor | None = None
    ) -> Tensor:
        """(B, L) token ids -> (B, L, E) encodings; token_mask (B, L), True = real."""
        encoding: Tensor = self.text(token_ids, voice.style, token_mask)
        return encoding

    def predict_durations(
        self, encoding: Tensor, voice: VoiceContext, token_mask: Tensor | None = None
    ) -> Tensor:
        """(B, L, E) encodings -> (B, L) log(1 + frames) at speed 1."""
        predicted: Tensor = self.durations(encoding, voice.style, token_mask)
        return predicted

    def frame_conditions(
        self, encoding: Tensor, durations: Tensor, num_frames: int | None = None
    ) -> Tensor:
        """(B, L, E) encodings and (B, L) frames a token -> (B, T, E), zeros after an item's end.

        T is `num_frames`, or that of the longest item.
        """
        taken, features = spread(encoding, durations, num_frames)
        inside = features[..., -1:] > 0  # (B, T, 1): the last feature is 1 / length
        conditions: Tensor = taken + self.position(features) * inside
        return conditions

    def null_conditions(self, batch_size: int, num_frames: int) -> Tensor:
        """(B, T, E) conditions that say nothing, for guidance."""
        return self.null_condition.expand(batch_size, num_frames, -1)

    def velocity(
        self,
        x_t: Tensor,
        step: Tensor | StepIndex,
        conditions: Tensor,
        voice: VoiceContext,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """The velocity data - noise that the network sees at x_t.

        Args:
            x_t: (B, T, M) between noise and normalized log-mel.
            step: for a teacher the flow time t (B,) in [0, 1]; for a student its `StepIndex`.
            conditions: (B, T, E) of `frame_conditions` or `null_conditions`.
            voice: of `encode_voice` or `null_voice`; its batch is B or 1.
            frame_mask: (B, T) bool, True = real; None when nothing is padded.

        Returns:
            (B, T, M); what stands in padded frames means nothing.
        """
        num_frames = x_t.shape[1]
        inputs = torch.cat((x_t, conditions), dim=-1)  # (B, T, M + E)
        if frame_mask is not None:
            inputs = inputs * frame_mask.unsqueeze(-1)
        odd = -num_frames % self.patch_size
        inputs = F.pad(inputs, (0, 0, 0, odd))
        token_mask = None
        if frame_mask is not None:
            padded = F.pad(frame_mask, (0, odd))
            token_mask = padded.reshape(len(padded), -1, self.patch_size).any(dim=-1)  # (B, N)
        state = self.step(step)
        v: Tensor = self.dit(inputs, state, voice.keys_values, token_mask, voice.mask)
        return v[:, :num_frames]


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())
