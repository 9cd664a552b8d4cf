"""What a recording becomes before it is encoded as a voice."""

import logging
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from stepflow_tts.audio.effects import (
    active_level_db,
    cross_fade,
    reduce_noise,
    resample,
    set_level,
    trim_silence,
)
from stepflow_tts.audio.io import Samples, open_blocks
from stepflow_tts.audio.sources import AudioSource, source_name
from stepflow_tts.errors import AudioError

logger = logging.getLogger(__name__)

Clips: TypeAlias = AudioSource | list[AudioSource] | tuple[AudioSource, ...]
"""One recording of a speaker, or a list or tuple of several."""

LEVEL_DB = -26.0
SILENCE_DB = -60.0
MIN_SECONDS = 1.0
MAX_SECONDS = 7.9  # 741 frames: a voice file of a full 8 s would pass 150 kB
WINDOW_SECONDS = 30.0  # what is read of a long recording, from its first sound
MAX_CLIPS = 8  # about a second of each
FADE_SECONDS = 0.02  # between clips, so that no click is heard


def load_reference(
    source: Clips, sample_rate: int | None = None, *, target_rate: int = 24_000
) -> Tensor:
    """The voice in a recording as the model hears it: (S,) mono float32, speech at -26 dBFS.

    Steady noise is lowered and outer silence trimmed, then the first 7.9 s are kept and a warning
    logged if there was more.
    Of a long recording only 30 s from the first sound are read. Several clips are each trimmed and
    levelled, and joined in their order; they share the 7.9 s equally, and what a short one leaves is
    shared by the others.

    Args:
        source: as for `load_audio`, or a list or tuple of up to 8 of those, of one speaker.
        sample_rate: in Hz, of an array or tensor; in a list, of all of its arrays and tensors.
        target_rate: sample rate of the result in Hz.

    Raises:
        AudioError: as `load_audio`; also silent (below -60 dBFS), less than 1 s of speech, or a
            list that is empty or of more than 8. Of several clips the message tells which.
    """
    if not isinstance(source, list | tuple):
        clips, name = [_speech(source, sample_rate, target_rate)], source_name(source)
    else:
        clips, name = _speech_of_clips(source, sample_rate, target_rate), "The clips"
    total = sum(clip.numel() for clip in clips)
    if total < MIN_SECONDS * target_rate:
        raise AudioError(
            f"{name}: {total / target_rate:.2f} s of speech; at least {MIN_SECONDS:g} s is "
            "needed, and 3 to 8 s are best."
        )
    available = round(MAX_SECONDS * target_rate)
    if total > available:
        logger.warning("%s: only the first %.1f s of speech are used.", name, MAX_SECONDS)
    shares = fair_shares([clip.numel() for clip in clips], available)
    joined, *others = (
        set_level(clip[:share], target_rate, LEVEL_DB)
        for clip, share in zip(clips, shares, strict=True)
    )
    for clip in others:
        fade = min(round(FADE_SECONDS * target_rate), joined.numel(), clip.numel())
        joined = cross_fade(joined, clip, fade)
    return joined


def fair_shares(lengths: list[int], available: int) -> list[int]:
    """How much of each length is used: all if it fits, else equal shares of `available`.

    >>> fair_shares([100, 10, 100], available=90)
    [40, 10, 40]
    """
    shares = dict.fromkeys(range(len(lengths)), 0)
    left = available
    for taken, index in enumerate(sorted(shares, key=lambda index: lengths[index])):
        shares[index] = min(lengths[index], left // (len(lengths) - taken))
        left -= shares[index]
    return list(shares.values())


def _speech_of_clips(
    sources: list[AudioSource] | tuple[AudioSource, ...], sample_rate: int | None, target_rate: int
) -> list[Tensor]:
    """The speech of each clip."""
    if not 1 <= len(sources) <= MAX_CLIPS:
        raise AudioError(
            f"{len(sources)} clips were passed; 1 to {MAX_CLIPS} of one speaker are allowed, each a "
            "recording. Pass the clearest; samples in a list become an array by numpy.asarray."
        )
    clips = []
    for number, source in enumerate(sources, start=1):
        try:
            rate = sample_rate if isinstance(source, np.ndarray | Tensor) else None
            clips.append(_speech(source, rate, target_rate))
        except AudioError as error:
            raise AudioError(f"Clip {number} of {len(sources)}: {error}") from error
    return clips


def _speech(source: AudioSource, sample_rate: int | None, target_rate: int) -> Tensor:
    """What is between the outer silences of a recording, less its noise, at its own level, (S,)."""
    with open_blocks(source, sample_rate) as (rate, blocks):
        waveform = _from_first_sound(blocks, rate)
    waveform = resample(waveform - waveform.mean(), rate, target_rate)
    level = active_level_db(waveform, target_rate)
    if level < SILENCE_DB:
        raise AudioError(
            f"{source_name(source)} is silent: its level is {level:.0f} dBFS, at least "
            f"{SILENCE_DB:.0f} is needed. Record 3 to 8 s of clear speech."
        )
    return trim_silence(reduce_noise(waveform, target_rate), target_rate)


def _from_first_sound(blocks: Iterator[Samples], rate: int) -> Tensor:
    """About 30 s, from the block before the first one that is not silent."""
    window: list[Tensor] = []
    missing = round(WINDOW_SECONDS * rate)
    started = False
    for samples in blocks:
        block = torch.from_numpy(samples)
        started = started or active_level_db(block - block.mean(), rate) >= SILENCE_DB
        if not started:
            window = [block]  # a soft onset may lie at its end
            continue
        window.append(block)
        missing -= block.numel()
        if missing <= 0:
            break
    return torch.cat(window)
