"""Losses between waveforms and their spectra, as pure functions."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig


class Resolution(NamedTuple):
    """Sizes of one short-time Fourier transform, in samples."""

    n_fft: int
    hop_length: int
    win_length: int


RESOLUTIONS = (
    Resolution(256, 64, 256),
    Resolution(1024, 256, 1024),
    Resolution(2048, 512, 2048),
)
"""11, 43 and 85 ms at 24 kHz: pulses, formants, harmonics. Twice the overlap doubles the price of all
losses (.35 s of a .6 s update) and teaches no more."""


class PhaseLosses(NamedTuple):
    """Mean absolute errors in radians, 0 to pi; pi / 2 is chance."""

    group_delay: Tensor  # of differences between neighbouring bins
    instantaneous_frequency: Tensor  # of differences between neighbouring frames


@lru_cache(maxsize=16)
def _window(length: int, device: torch.device) -> Tensor:
    return torch.hann_window(length, device=device)


def stft(waveform: Tensor, resolution: Resolution) -> Tensor:
    """The centred complex spectrum (B, T, F) of (B, S); zeros around the ends; F = n_fft // 2 + 1."""
    spectrum: Tensor = torch.stft(
        waveform,
        resolution.n_fft,
        resolution.hop_length,
        resolution.win_length,
        _window(resolution.win_length, waveform.device),
        pad_mode="constant",
        return_complex=True,
    ).transpose(1, 2)
    return spectrum


def magnitude(spectrum: Tensor, floor: float = 1e-4) -> Tensor:
    """Absolute values of a complex tensor, smooth near zero and at least `floor`.

    The default is below the rounding of 16-bit audio, which is about 3e-4 in a frame of 1024.
    """
    return (spectrum.real.square() + spectrum.imag.square() + floor**2).sqrt()


def stft_loss(predicted: Tensor, target: Tensor, resolution: Resolution) -> Tensor:
    """Spectral convergence plus mean absolute error of log magnitudes (nats), one resolution.

    Args:
        predicted: (B, S) in [-1, 1].
        target: (B, S) in [-1, 1].
        resolution: sizes of the transform.

    Source: Yamamoto et al., Parallel WaveGAN (arXiv 1910.11480), equations 4 to 6.
    """
    p = magnitude(stft(predicted, resolution))
    t = magnitude(stft(target, resolution))
    convergence: Tensor = torch.linalg.vector_norm(p - t) / torch.linalg.vector_norm(t).clamp(
        min=1e-3
    )
    return convergence + (p.log() - t.log()).abs().mean()


def multi_resolution_stft_loss(
    predicted: Tensor, target: Tensor, resolutions: tuple[Resolution, ...] = RESOLUTIONS
) -> Tensor:
    """Mean of `stft_loss` over several resolutions; 0 for equal waveforms.

    Args:
        predicted: (B, S) in [-1, 1].
        target: (B, S) in [-1, 1].
        resolutions: at least one.
    """
    losses = [stft_loss(predicted, target, r) for r in resolutions]
    return torch.stack(losses).mean()


def mel_loss(predicted: Tensor, target: Tensor, config: MelConfig) -> Tensor:
    """Mean absolute difference of the log-mels of two waveforms (B, S), in nats."""
    return (log_mel(predicted, config) - log_mel(target, config)).abs().mean()


def anti_wrap(angle: Tensor) -> Tensor:
    """How far an angle in radians is from the nearest whole turn: 0 to pi, any shape."""
    return (angle - 2 * torch.pi * torch.round(angle / (2 * torch.pi))).abs()


def phase_losses(predicted: Tensor, target: Tensor, weight: Tensor) -> PhaseLosses:
    """Errors of a phase's differences in frequency and time, whole turns apart.

    Only differences are compared: the absolute phase cannot be heard, nor read from a mel.

    Args:
        predicted: (B, T, F) radians, wrapped or not.
        target: (B, T, F) radians.
        weight: (B, T, F), not negative; a pair of cells counts by the lesser of the two.

    Source: Ai and Ling, APNet (arXiv 2305.07952), section III; FreeV (arXiv 2406.08196).
    """
    error = predicted - target
    losses = []
    for dim in (2, 1):
        size = error.shape[dim] - 1
        pair = torch.minimum(weight.narrow(dim, 0, size), weight.narrow(dim, 1, size))
        wrong = anti_wrap(error.diff(dim=dim))
        losses.append((wrong * pair).sum() / pair.sum().clamp(min=1e-6))
    return PhaseLosses(*losses)
