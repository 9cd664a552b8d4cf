"""The vocoder: log-mels to waveforms by one inverse Fourier transform."""

import math
from typing import NamedTuple

import torch
import torchaudio
from torch import Tensor, nn
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from stepflow_tts.audio.griffin_lim import refine_phase
from stepflow_tts.audio.mel import raise_formants
from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.errors import CheckpointFormatError
from stepflow_tts.models.refiner import Refiner
from stepflow_tts.models.source import (
    MEL_MEAN,
    MEL_STD,
    Pitch,
    PitchPredictor,
    between_frames,
    pulse_train,
    sample_phase,
)

MAX_LOG_MAGNITUDE = math.log(1e2)  # Vocos's safeguard; full-scale speech stays below 1e2
MAX_LOG_MEL = 10.0  # exp of more overflows; full scale is about 6
NOISE_SEED = 0  # of the noise that a listener gets: the same mels always sound the same

VOICED_UP_TO_HZ = 4000.0  # pulses below, noise above; 3000 and 5500 sounded no better
CROSSING_HZ = 400.0  # how slowly one gives way to the other
NOISE_RMS = 20.0  # of the cells of white noise and, on average, of pulses
GAINS_PER_FRAME = 8  # of the noise, 1.3 ms each: bursts are shorter than a frame


class Spectrum(NamedTuple):
    """What the network says of every cell of the short-time spectrum."""

    log_magnitude: Tensor  # (B, T, F) natural log, F = n_fft // 2 + 1
    direction: Tensor  # (B, T, F) complex, of absolute value 1 or a little less
    phase: Tensor  # (B, T, F) radians, not wrapped; with a prior that of the pulses alone
    certainty: Tensor  # (B, T, F) how much of the phase can be known: 0 in noise, 1 on average


class Source(NamedTuple):
    """Sound before the vocal tract: spectra (B, T, F), complex, equally strong per hertz."""

    pulses: Tensor
    noise: Tensor
    voicing: Tensor  # (B, T, F) share of the pulses


class MelInverse(nn.Module):
    """Linear magnitudes that have the given mels and the fine structure of a source.

    Multiplicative updates keep every cell positive. The filters' pseudo-inverse has negative cells, which
    become holes in the logarithm: its mean error is .56 nats below 2 kHz, here .37.

    Source: FreeV (arXiv 2406.08196) for the idea; Lee and Seung 2001 for the updates (divergence).
    """

    filters: Tensor
    height: Tensor

    def __init__(self, mel: MelConfig, num_updates: int = 5) -> None:
        super().__init__()
        num_bins = mel.n_fft // 2 + 1
        filters = torchaudio.functional.melscale_fbanks(
            num_bins, 0.0, mel.sample_rate / 2, mel.n_mels, mel.sample_rate
        )  # (F, M)
        height = filters.sum(dim=1).clamp(min=1e-3)  # (F,): bin 0 is in no band
        self.num_updates = num_updates
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("height", height, persistent=False)

    def forward(self, log_mel: Tensor, start: Tensor) -> Tensor:
        """(B, T, M) natural log and positive magnitudes (B, T, F) -> (B, T, F) natural log, >= ln 1e-5."""
        mel = log_mel.clamp(max=MAX_LOG_MEL).exp()
        magnitude = start
        for _ in range(self.num_updates):
            ratio = mel / (magnitude @ self.filters).clamp(min=1e-9)  # (B, T, M)
            magnitude = magnitude * (ratio @ self.filters.T / self.height)  # (B, T, F)
        return magnitude.clamp(min=1e-5).log()


class Vocoder(nn.Module):
    """Vocos's backbone and inverse Fourier head; with `config.prior` on top of an analytic start.

    The start: pulses at the pitch read from the mels and noise give the phase, `MelInverse` the
    magnitude. The network turns the pulses' phases, corrects the magnitudes and shapes the noise in time;
    all of that begins at exactly zero. Without a prior this is Vocos as published. A refiner, if there is
    one, was trained with a student, and works on what `decode` is given, at the pitch read from that.
    """

    def __init__(self, config: VocoderConfig, mel: MelConfig) -> None:
        """Draw the weights.

        Raises:
            CheckpointFormatError: a refiner is asked for without a prior, so without a pitch.
        """
        super().__init__()
        self.config = config
        self.mel = mel
        self.backbone = VocosBackbone(
            mel.n_mels, config.dim, config.intermediate_dim, config.num_layers
        )
        self.head = ISTFTHead(config.dim, mel.n_fft, mel.hop_length, padding="center")
        self.pitch: PitchPredictor | None = None
        if config.prior:
            self.pitch = PitchPredictor(config.pitch_dim, config.pitch_layers, mel)
            self.inverse = MelInverse(mel)
            self.shape = nn.Linear(config.dim, 3 + GAINS_PER_FRAME)
            for layer in (self.head.out, self.shape):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.refiner: Refiner | None = None
        if config.refiner_layers:
            if not config.prior:
                raise CheckpointFormatError(
                    "vocoder.refiner_layers needs vocoder.prior, which reads the pitch: set prior = true "
                    "or refiner_layers = 0."
                )
            self.refiner = Refiner(config.refiner_dim, config.refiner_layers, mel)

    def spectrum(
        self, log_mel: Tensor, pitch: Pitch | None = None, noise: Tensor | None = None
    ) -> Spectrum:
        """Magnitude and phase of every cell, differentiable.

        Args:
            log_mel: (B, T, M) natural log, T >= 2.
            pitch: the true pitch in training; read from the mels without it. Not used without a prior.
            noise: (B, (T - 1) * hop_length) of unit variance; always the same without it.
        """
        if self.pitch is None:
            hidden = self.backbone(log_mel.transpose(1, 2))  # (B, T, D)
            log_magnitude, phase = self.head.out(hidden).chunk(2, dim=-1)  # (B, T, F) each
            direction = torch.complex(phase.cos(), phase.sin())
            certainty = torch.ones_like(phase)
            return Spectrum(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE), direction, phase, certainty)
        if pitch is None:
            pitch = self.pitch.predict(log_mel)
        if noise is None:
            noise = self._fixed_noise(log_mel)
        hidden = self.backbone(((log_mel - MEL_MEAN) / MEL_STD).transpose(1, 2))  # (B, T, D)
        residual, turn = self.head.out(hidden).chunk(2, dim=-1)  # (B, T, F) each
        source = self._source(pitch, noise, self.shape(hidden))
        turned = source.pulses * torch.complex(turn.cos(), turn.sin())
        mixed = source.voicing * turned + (1 - source.voicing) * source.noise
        # .05 is far below both: between harmonics nothing is divided by zero.
        size = (mixed.real.square() + mixed.imag.square() + 0.05**2).sqrt()
        log_magnitude = self.inverse(log_mel, size) + residual
        phase = source.pulses.angle() + turn
        # Between harmonics and above the border the phase is chance: measured there, it drowns the rest.
        certainty = (source.voicing * source.pulses.abs()).detach() / NOISE_RMS
        return Spectrum(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE), mixed / size, phase, certainty)

    def waveform(self, spectrum: Spectrum) -> Tensor:
        """(B, (T - 1) * hop_length) of a spectrum as it is, differentiable; T >= 2."""
        cells = spectrum.log_magnitude.exp() * spectrum.direction
        waveform: Tensor = self.head.istft(cells.transpose(1, 2))
        return waveform

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, T, M) -> (B, (T - 1) * hop_length), differentiable, without Griffin-Lim; T >= 2."""
        return self.waveform(self.spectrum(log_mel))

    @torch.no_grad()
    def decode(self, log_mel: Tensor, formants: float = 0.0) -> Tensor:
        """The waveform that a listener gets.

        Args:
            log_mel: (B, T, M) natural log, floor 1e-7 or above.
            formants: amount of `raise_formants`, after the refiner.

        Returns:
            (B, (T - 1) * hop_length), about [-1, 1] but not limited to it; always the same for the same
            input. The phase is made consistent by `config.griffin_lim_iterations` rounds of fast
            Griffin-Lim.
        """
        pitch = None
        if self.refiner is not None:
            assert self.pitch is not None
            pitch = self.pitch.predict(log_mel)
            log_mel = self.refiner(log_mel, pitch)
        log_mel = raise_formants(log_mel, formants, self.mel)
        spectrum = self.spectrum(log_mel, pitch)
        return refine_phase(
            spectrum.log_magnitude.exp(),
            spectrum.direction.angle(),
            self.mel,
            self.config.griffin_lim_iterations,
        )

    def _fixed_noise(self, log_mel: Tensor) -> Tensor:
        """(B, S) white noise, the same in every row and call."""
        num_samples = (log_mel.shape[1] - 1) * self.mel.hop_length
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise = torch.randn(num_samples, generator=generator).to(log_mel)
        return noise.expand(log_mel.shape[0], -1)

    def _source(self, pitch: Pitch, noise: Tensor, shape: Tensor) -> Source:
        """Spectra of pulses and of noise that follows `shape` (B, T, 3 + gains) in time."""
        hop = self.mel.hop_length
        phase = sample_phase(pitch, self.mel)  # (B, S)
        pulses = pulse_train(phase, between_frames(pitch.f0, hop), self.mel.sample_rate)
        border, in_phase, across = shape[..., :3].unbind(dim=-1)  # (B, T) each
        gains = shape[..., 3:].flatten(1)  # (B, T * gains)
        gains = nn.functional.interpolate(
            gains[:, None], scale_factor=hop // GAINS_PER_FRAME, mode="linear"
        )
        gains = gains[:, 0, hop // 2 : hop // 2 + noise.shape[1]]  # (B, S)
        # Breath is not even: it is loudest when the folds are open, once a period.
        rhythm = (
            between_frames(in_phase, hop) * phase.cos() + between_frames(across, hop) * phase.sin()
        )
        gains = gains + between_frames(pitch.voiced, hop) * rhythm
        noise = noise * gains.clamp(-4, 4).exp()
        highest = VOICED_UP_TO_HZ * 2 ** border.tanh()  # (B, T) an octave down or up
        hertz = torch.linspace(0, self.mel.sample_rate / 2, self.mel.n_fft // 2 + 1).to(shape)
        below = torch.sigmoid((highest[..., None] - hertz) / CROSSING_HZ)  # (B, T, F)
        voicing = pitch.voiced[..., None] * below
        return Source(self._stft(pulses), self._stft(noise), voicing)

    def _stft(self, waveform: Tensor) -> Tensor:
        """(B, S) -> (B, T, F), complex, with zeros around the ends."""
        spectrum = torch.stft(
            waveform,
            self.mel.n_fft,
            self.mel.hop_length,
            window=self.head.istft.window,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.transpose(1, 2)
