"""Waveforms from log-mels without a trained vocoder, by fast Griffin-Lim."""

import math

import torch
from torch import Tensor

from stepflow_tts.audio.mel import mel_pseudo_inverse
from stepflow_tts.config import MelConfig


def griffin_lim(
    log_mel: Tensor,
    config: MelConfig,
    num_iterations: int = 32,
    *,
    momentum: float = 0.99,
    initial_phase: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A waveform whose mels are close to the given ones.

    Args:
        log_mel: (B, T, M) natural log.
        config: frame and filter sizes.
        num_iterations: rounds of inverse and forward transform; 0 uses the initial phase as it is.
        momentum: 0 is plain Griffin-Lim; .99 converges in a third of the rounds.
        initial_phase: (B, T, F) in radians, F = n_fft // 2 + 1; random without it.
        generator: source of the random phase, on the CPU; without it a new one with seed 0.

    Returns:
        (B, (T - 1) * hop_length), not limited to [-1, 1].

    Source: Perraudin, Balazs and Sondergaard, A fast Griffin-Lim algorithm, WASPAA 2013.
    """
    magnitude = (log_mel.float().exp() @ mel_pseudo_inverse(config, log_mel.device)).clamp(min=0)
    if initial_phase is None:
        generator = generator or torch.Generator().manual_seed(0)
        uniform = torch.rand(magnitude.shape, generator=generator)
        initial_phase = (2 * math.pi * uniform).to(log_mel.device)
    return refine_phase(magnitude, initial_phase, config, num_iterations, momentum)


def refine_phase(
    magnitude: Tensor,
    phase: Tensor,
    config: MelConfig,
    num_iterations: int,
    momentum: float = 0.99,
) -> Tensor:
    """The waveform of `magnitude`, its phase made consistent by fast Griffin-Lim from `phase`.

    Args:
        magnitude: (B, T, F), not negative, F = n_fft // 2 + 1.
        phase: (B, T, F) in radians.
        config: frame sizes.
        num_iterations: rounds of inverse and forward transform; 0 is a plain inverse transform.
        momentum: weight of the last change, as in `griffin_lim`.

    Returns:
        (B, (T - 1) * hop_length).
    """
    batch, frames, _ = magnitude.shape
    if frames < 2:
        return magnitude.new_zeros(batch, 0)
    window = torch.hann_window(config.n_fft, device=magnitude.device)
    length = (frames - 1) * config.hop_length
    magnitude = magnitude.transpose(1, 2)  # (B, F, T)
    spectrum = torch.polar(magnitude, phase.transpose(1, 2))
    previous = torch.zeros_like(spectrum)
    for _ in range(num_iterations):
        waveform = torch.istft(
            spectrum, config.n_fft, config.hop_length, window=window, length=length
        )  # (B, S)
        # Zeros around the ends, not torch's reflection: that needs more than n_fft // 2 samples.
        rebuilt = torch.stft(
            waveform,
            config.n_fft,
            config.hop_length,
            window=window,
            pad_mode="constant",
            return_complex=True,
        )  # (B, F, T)
        step = rebuilt + momentum * (rebuilt - previous)
        spectrum = magnitude * torch.sgn(step)
        previous = rebuilt
    return torch.istft(spectrum, config.n_fft, config.hop_length, window=window, length=length)
