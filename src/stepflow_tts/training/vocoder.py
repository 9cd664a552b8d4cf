"""Trains the vocoder: reconstruction losses first, an adversary after."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.errors import InputError
from stepflow_tts.models.source import (
    BINS_PER_OCTAVE,
    LOWEST_HZ,
    NUM_CANDIDATES,
    Pitch,
    PitchLogits,
)
from stepflow_tts.models.vocoder import Spectrum, Vocoder
from stepflow_tts.training.discriminators import (
    DISCRIMINATOR_RESOLUTIONS,
    Discriminator,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from stepflow_tts.training.loop import Loss
from stepflow_tts.training.pitch import PITCH_FILE, open_pitch, write_pitch
from stepflow_tts.training.spectral import (
    Resolution,
    magnitude,
    mel_loss,
    multi_resolution_stft_loss,
    phase_losses,
    stft,
)
from stepflow_tts.training.utterances import open_audio, read_utterances

logger = logging.getLogger(__name__)

WIDE_RATE = 20000.0  # hertz; sources below have no top bands


@dataclass(frozen=True, slots=True)
class VocoderTrainingConfig:
    """How a vocoder is trained; the recipe's [vocoder] section."""

    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    mel: MelConfig = field(default_factory=MelConfig)
    batch_size: int = 16  # crops
    crop_frames: int = 48  # .5 s
    narrow_share: float = 0.25  # crops of sources below WIDE_RATE
    lowest_floor: float = 1e-7  # mel floors are drawn between these, evenly in their logarithm
    highest_floor: float = 1e-3
    jitter: float = 0.1  # standard deviation of the noise on log-mels, nats
    gain_db: float = 6.0  # crops are made louder or softer by at most this
    adversarial_from: int = 1_000_000  # the first step with a discriminator
    discriminator_channels: int = 16
    mel_weight: float = 1.0
    stft_weight: float = 1.0
    magnitude_weight: float = 0.5
    phase_weight: float = 1.0
    pitch_weight: float = 0.3
    generator_weight: float = 0.2
    feature_weight: float = 1.0


class Batch(NamedTuple):
    """Crops and what the vocoder is told of them."""

    waveform: Tensor  # (B, S) in [-1, 1]
    log_mel: Tensor  # (B, T, M), floored and jittered
    pitch: Pitch  # (B, T) each
    noise: Tensor  # (B, S) of unit variance


class Crop(NamedTuple):
    """A stretch of one recording, frame on frame."""

    waveform: Tensor  # (S,)
    pitch: Tensor  # (T, 3): f0, phase, voiced; T = 1 + S // hop_length


class Crops:
    """Random crops of one split of a prepared folder; utterances without usable text count too."""

    def __init__(self, folder: Path, split: str, mel: MelConfig) -> None:
        self.mel = mel
        self.audio = open_audio(folder)
        self.pitch = open_pitch(folder)
        chosen = [u for u in read_utterances(folder) if u.split == split]
        if not chosen:
            raise InputError(f"{folder} has no utterance of the split {split!r}. Prepare it again.")
        self.wide = [u for u in chosen if u.source_sample_rate >= WIDE_RATE]
        self.narrow = [u for u in chosen if u.source_sample_rate < WIDE_RATE]
        self.wide_ends = np.cumsum([u.num_frames for u in self.wide])
        self.narrow_ends = np.cumsum([u.num_frames for u in self.narrow])

    def draw(self, num_frames: int, narrow_share: float, generator: torch.Generator) -> Crop:
        """A crop of `num_frames` hops, every second being equally likely; silence after a recording's end."""
        group, ends = self.wide, self.wide_ends
        wants_narrow = torch.rand((), generator=generator).item() < narrow_share
        if (wants_narrow and self.narrow) or not self.wide:
            group, ends = self.narrow, self.narrow_ends
        place = int(torch.randint(int(ends[-1]), (), generator=generator).item())
        u = group[int(np.searchsorted(ends, place, side="right"))]
        latest = max(u.num_frames - 1 - num_frames, 0)
        first = int(torch.randint(latest + 1, (), generator=generator).item())
        hop = self.mel.hop_length
        start = u.start_sample + first * hop
        stop = min(start + num_frames * hop, u.start_sample + u.num_samples)
        samples = torch.from_numpy(self.audio[start:stop].astype(np.float32)) / 32767
        samples = nn.functional.pad(samples, (0, num_frames * hop - len(samples)))
        start = u.start_frame + first
        stop = min(start + num_frames + 1, u.start_frame + u.num_frames)
        rows = torch.from_numpy(np.array(self.pitch[start:stop]))
        after = rows[-1:] * torch.tensor([1.0, 1.0, 0.0])  # not voiced
        rows = torch.cat((rows, after.expand(num_frames + 1 - len(rows), -1)))
        return Crop(samples, rows)


class VocoderTask:
    """The vocoder and its adversary, for `training.loop.train`.

    Up to `adversarial_from` a step is one update of the vocoder; after it, one of the discriminator at
    a resolution drawn for the step, then one of the vocoder.
    """

    def __init__(self, folder: Path, config: VocoderTrainingConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.vocoder = Vocoder(config.vocoder, config.mel)
            self.discriminator = Discriminator(config.discriminator_channels)
        self.modules: Mapping[str, nn.Module] = {
            "vocoder": self.vocoder,
            "discriminator": self.discriminator,
        }
        if config.vocoder.prior and not (folder / PITCH_FILE).exists():
            logger.info("tracking the pitch of every recording in %s, once", folder)
            write_pitch(folder, config.mel)
        self.training_crops = Crops(folder, "train", config.mel)
        self.held_out_crops = Crops(folder, "held_out", config.mel)

    def batch(self, step: int) -> Batch:
        """The crops of one step, always the same for the same seed and step."""
        return self._batch(self.training_crops, _generator(self.seed, step))

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """The discriminator's loss once it takes part, then the vocoder's."""
        batch = _to(batch, self.vocoder)
        spectrum = self.vocoder.spectrum(batch.log_mel, batch.pitch, batch.noise)
        waveform = self.vocoder.waveform(spectrum)
        value, logs = self._reconstruction(spectrum, waveform, batch)
        value = value + self._pitch_loss(self.vocoder, batch, logs)
        if step < self.config.adversarial_from:
            yield Loss("vocoder", value, logs)
            return
        index = _draw_index(self.seed, step)
        real = self.discriminator(batch.waveform, index)
        fake = self.discriminator(waveform.detach(), index)
        loss = discriminator_loss(real, fake)
        yield Loss("discriminator", loss, {"discriminator": loss.item()})
        with torch.no_grad():
            real = self.discriminator(batch.waveform, index)
        fake = self.discriminator(waveform, index)
        fooled, features = generator_loss(fake), feature_loss(real, fake)
        value = value + self.config.generator_weight * fooled
        value = value + self.config.feature_weight * features
        logs |= {"generator": fooled.item(), "features": features.item()}
        yield Loss("vocoder", value, logs)

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002  the same crops at every step
        """Reconstruction losses of the averaged weights on crops of speakers never trained on."""
        assert isinstance(ema, Vocoder)
        batches = [
            self._batch(self.held_out_crops, _generator(self.seed, -1 - i)) for i in range(4)
        ]
        totals: dict[str, float] = {}
        for batch in (_to(b, ema) for b in batches):
            spectrum = ema.spectrum(batch.log_mel, batch.pitch, batch.noise)
            waveform = ema.waveform(spectrum)
            _, logs = self._reconstruction(spectrum, waveform, batch)
            self._pitch_loss(ema, batch, logs)
            for name, number in logs.items():
                totals[name] = totals.get(name, 0.0) + number / len(batches)
        return {f"held_out_{name}": total for name, total in totals.items()}

    def _batch(self, crops: Crops, generator: torch.Generator) -> Batch:
        """A batch of `crops` with gains, floors and jitter drawn from `generator`."""
        c = self.config
        drawn = [crops.draw(c.crop_frames, c.narrow_share, generator) for _ in range(c.batch_size)]
        waveform = torch.stack([d.waveform for d in drawn])  # (B, S)
        f0, phase, voiced = torch.stack([d.pitch for d in drawn]).unbind(dim=-1)  # (B, T)
        gain = c.gain_db * (2 * torch.rand(c.batch_size, 1, generator=generator) - 1)
        waveform = (waveform * 10 ** (gain / 20)).clamp(-1, 1)
        low, high = math.log(c.lowest_floor), math.log(c.highest_floor)
        floor = low + (high - low) * torch.rand(c.batch_size, 1, 1, generator=generator)
        mel = torch.maximum(log_mel(waveform, c.mel), floor)  # (B, T, M)
        mel = mel + c.jitter * torch.randn(mel.shape, generator=generator)
        noise = torch.randn(waveform.shape, generator=generator)
        return Batch(waveform, mel, Pitch(f0, phase, voiced), noise)

    def _pitch_loss(self, vocoder: Vocoder, batch: Batch, logs: dict[str, float]) -> Tensor:
        """How wrong the pitch and voicing that are read from the mels are."""
        if vocoder.pitch is None:
            return torch.zeros(())
        logits, truth = vocoder.pitch(batch.log_mel), batch.pitch
        chance = pitch_loss(logits, truth)
        with torch.no_grad():
            octaves = (vocoder.pitch.predict(batch.log_mel).f0 / truth.f0).log2().abs()
            wrong = (octaves > 1 / 12) & (truth.voiced > 0)  # more than a semitone
            logs["pitch_errors"] = wrong.sum().item() / max(1.0, truth.voiced.sum().item())
            logs["voicing_errors"] = (
                ((logits.voiced > 0) != (truth.voiced > 0)).float().mean().item()
            )
        return self.config.pitch_weight * chance

    def _reconstruction(
        self, spectrum: Spectrum, waveform: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of all reconstruction losses, and each of them."""
        c, target = self.config, batch.waveform
        truth = stft(target, Resolution(c.mel.n_fft, c.mel.hop_length, c.mel.n_fft))  # (B, T, F)
        size = magnitude(truth)
        # Measured against the spectrum itself, not the waveform: there an unsure phase makes a lower
        # magnitude pay, and the network then ends below its own prior.
        log_error = (spectrum.log_magnitude.clamp(min=math.log(1e-4)) - size.log()).abs().mean()
        phase = phase_losses(spectrum.phase, truth.angle(), size.sqrt() * spectrum.certainty)
        mel = mel_loss(waveform, target, c.mel)
        multi = multi_resolution_stft_loss(waveform, target)
        value = (
            c.mel_weight * mel
            + c.stft_weight * multi
            + c.magnitude_weight * log_error
            + c.phase_weight * (phase.group_delay + phase.instantaneous_frequency)
        )
        logs = {
            "reconstruction": value.item(),
            "mel": mel.item(),
            "stft": multi.item(),
            "magnitude": log_error.item(),
            "group_delay": phase.group_delay.item(),
            "frequency": phase.instantaneous_frequency.item(),
        }
        return value, logs


def _to(batch: Batch, module: nn.Module) -> Batch:
    """The batch where the module is."""
    device = next(module.parameters()).device
    pitch = Pitch(*(x.to(device) for x in batch.pitch))
    return Batch(batch.waveform.to(device), batch.log_mel.to(device), pitch, batch.noise.to(device))


def _generator(seed: int, step: int) -> torch.Generator:
    """Randomness of one step; negative steps are the validation's."""
    sequence = np.random.SeedSequence([seed, step + 2**32])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)


def pitch_loss(logits: PitchLogits, truth: Pitch) -> Tensor:
    """Cross-entropy of the pitch where it is voiced, plus that of the voicing, in nats.

    Args:
        logits: (B, T, C) and (B, T).
        truth: (B, T) each. A pitch between two candidates, or near one, is right for all of them by a
            bell of one candidate's width.
    """
    place = (truth.f0 / LOWEST_HZ).log2() * BINS_PER_OCTAVE  # (B, T)
    candidates = torch.arange(NUM_CANDIDATES, device=place.device)
    target = (-0.5 * (candidates - place[..., None]).square()).softmax(dim=-1)  # (B, T, C)
    entropy = -(target * logits.candidates.log_softmax(dim=-1)).sum(dim=-1)  # (B, T)
    which = (entropy * truth.voiced).sum() / truth.voiced.sum().clamp(min=1)
    voiced = nn.functional.binary_cross_entropy_with_logits(logits.voiced, truth.voiced)
    return which + voiced


def _draw_index(seed: int, step: int) -> int:
    """Which resolution's discriminator is asked at this step."""
    generator = _generator(seed + 1, step)
    return int(torch.randint(len(DISCRIMINATOR_RESOLUTIONS), (), generator=generator).item())


def vocoder_task(
    prepared_folder: str | Path, config: VocoderTrainingConfig, seed: int
) -> VocoderTask:
    """The task of training a vocoder on a prepared folder's audio."""
    return VocoderTask(Path(prepared_folder), config, seed)
