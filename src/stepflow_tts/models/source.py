"""What the vocal folds do: pitch read from log-mels, and the pulses that follow it.

A convolution cannot tell the absolute phase of a steady tone from mels that do not change, so it learns
phases slowly. Pulses that integrate the pitch carry them from frame to frame instead; what is left to
learn is local.

Source: Wang et al., neural source-filter models (arXiv 1904.12088); Liu et al., neural homomorphic
vocoder (Interspeech 2020), for the idea of filtering a pulse train in the short-time spectrum.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vocos.models import VocosBackbone

from stepflow_tts.config import MelConfig

LOWEST_HZ = 55.0
HIGHEST_HZ = 560.0
BINS_PER_OCTAVE = 48
NUM_CANDIDATES = 1 + int(math.log2(HIGHEST_HZ / LOWEST_HZ) * BINS_PER_OCTAVE)  # 161
NEIGHBOURS = 3  # candidates on each side of the best that are averaged with it

MEL_MEAN = (
    -5.0
)  # nats, about those of levelled speech, so that a network's inputs are near unit size
MEL_STD = 3.0


class Pitch(NamedTuple):
    """The voice source at the centre of every frame."""

    f0: Tensor  # (B, T) hertz, carried through what is not voiced
    phase: Tensor  # (B, T) radians; a pulse where it is a whole turn
    voiced: Tensor  # (B, T) 0 or 1


class PitchLogits(NamedTuple):
    """What the predictor believes."""

    candidates: Tensor  # (B, T, C) of `candidate_hz`
    voiced: Tensor  # (B, T)


def candidate_hz(device: torch.device | None = None) -> Tensor:
    """The (C,) frequencies that the predictor chooses from, evenly spaced in their logarithm."""
    steps = torch.arange(NUM_CANDIDATES, device=device)
    return LOWEST_HZ * 2 ** (steps / BINS_PER_OCTAVE)


class PitchPredictor(nn.Module):
    """Fundamental frequency and voicing from log-mels."""

    def __init__(self, dim: int, num_layers: int, mel: MelConfig) -> None:
        super().__init__()
        self.mel = mel
        self.backbone = VocosBackbone(mel.n_mels, dim, 3 * dim, num_layers)
        self.out = nn.Linear(dim, NUM_CANDIDATES + 1)

    def forward(self, log_mel: Tensor) -> PitchLogits:
        """Logits for (B, T, M) natural log-mels."""
        x = (log_mel - MEL_MEAN) / MEL_STD
        out = self.out(self.backbone(x.transpose(1, 2)))  # (B, T, C + 1)
        return PitchLogits(out[..., :-1], out[..., -1])

    @torch.no_grad()
    def predict(self, log_mel: Tensor) -> Pitch:
        """The most likely pitch of (B, T, M) log-mels; its phase starts at 0."""
        logits = self(log_mel)
        best = logits.candidates.argmax(dim=-1, keepdim=True)  # (B, T, 1)
        near = best + torch.arange(-NEIGHBOURS, NEIGHBOURS + 1, device=best.device)
        near = near.clamp(0, NUM_CANDIDATES - 1)  # (B, T, 2 * NEIGHBOURS + 1)
        weight = logits.candidates.gather(-1, near).softmax(dim=-1)
        octaves = (weight * near).sum(dim=-1) / BINS_PER_OCTAVE  # (B, T)
        voiced = logits.voiced > 0
        f0 = LOWEST_HZ * 2 ** carry(octaves, voiced)
        return Pitch(f0, integrate(f0, self.mel), voiced.to(f0.dtype))


def carry(values: Tensor, known: Tensor) -> Tensor:
    """`values` (B, T) with those that are not `known` (B, T) drawn as lines between their neighbours.

    A row in which nothing is known becomes its mean.
    """
    num_frames = values.shape[1]
    index = torch.arange(num_frames, device=values.device).expand_as(values)
    before = torch.where(known, index, -1).cummax(dim=1).values
    after = torch.where(known, index, num_frames).flip(1).cummin(dim=1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp(max=num_frames - 1)
    right = torch.where(after >= num_frames, before, after).clamp(min=0)
    share = (index - left).to(values.dtype) / (right - left).clamp(min=1)
    drawn = torch.lerp(values.gather(1, left), values.gather(1, right), share.clamp(0, 1))
    return torch.where(known.any(dim=1, keepdim=True), drawn, values.mean(dim=1, keepdim=True))


def integrate(f0: Tensor, mel: MelConfig) -> Tensor:
    """The phase (B, T) in radians, 0 in the first frame, of a pitch (B, T) in hertz."""
    # Float64: after a minute at 500 Hz the phase is 2e5 radians, where float32 has steps of .02.
    advance = math.pi * (f0[:, 1:] + f0[:, :-1]).double() / mel.frame_rate
    return F.pad(advance.cumsum(dim=1) % (2 * math.pi), (1, 0)).to(f0.dtype)


def between_frames(values: Tensor, hop_length: int) -> Tensor:
    """Linear interpolation of (B, T) at frame centres to (B, (T - 1) * hop_length) samples."""
    share = torch.arange(hop_length, device=values.device, dtype=values.dtype) / hop_length
    lines = torch.lerp(values[:, :-1, None], values[:, 1:, None], share)  # (B, T - 1, hop)
    return lines.flatten(1)


def sample_phase(pitch: Pitch, mel: MelConfig) -> Tensor:
    """The phase (B, (T - 1) * hop_length) in radians, within a turn or a few of 0.

    It meets `pitch.phase` at every frame centre: the pitch tells the number of turns between two frames,
    their phases the rest.
    """
    turn = 2 * math.pi
    expected = math.pi * (pitch.f0[:, 1:] + pitch.f0[:, :-1]) / mel.frame_rate  # (B, T - 1)
    missing = pitch.phase.diff(dim=1) - expected
    advance = expected + missing - turn * torch.round(missing / turn)
    bend = math.pi * pitch.f0.diff(dim=1) / mel.frame_rate  # from a pitch that changes on the way
    s = torch.arange(mel.hop_length, device=pitch.f0.device) / mel.hop_length  # (hop,) 0 to 1
    inside = advance[..., None] * s + bend[..., None] * (s * s - s)  # (B, T - 1, hop)
    return (pitch.phase[:, :-1, None] + inside).flatten(1)


def pulse_train(phase: Tensor, f0: Tensor, sample_rate: int) -> Tensor:
    """All harmonics below the Nyquist frequency as cosines, as strong per hertz as unit white noise.

    Args:
        phase: (B, S) radians of the fundamental.
        f0: (B, S) hertz.
        sample_rate: in hertz.

    Returns:
        (B, S): sqrt(4 f0 / sample_rate) * sum of cos(k phase) for k = 1 to K, as the Dirichlet kernel.
    """
    num_harmonics = torch.floor(sample_rate / 2 / f0)
    half = (torch.remainder(phase + math.pi, 2 * math.pi) - math.pi) / 2  # (B, S) within pi / 2
    near_zero = half.abs() < 1e-4
    sine = torch.where(near_zero, torch.ones_like(half), half.sin())
    total = torch.sin((2 * num_harmonics + 1) * half) / (2 * sine) - 0.5
    total = torch.where(near_zero, num_harmonics, total)
    return total * torch.sqrt(4 * f0 / sample_rate)
