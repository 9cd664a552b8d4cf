"""What a recording becomes before it is encoded as a voice."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from stepflow_tts.audio.effects import active_level_db, resample, set_level, trim_silence
from stepflow_tts.audio.io import AudioSource, Samples, open_blocks, source_name
from stepflow_tts.errors import AudioError

logger = logging.getLogger(__name__)

LEVEL_DB = -26.0
SILENCE_DB = -60.0
MIN_SECONDS = 1.0
MAX_SECONDS = 7.9  # 741 frames: a voice file of a full 8 s would pass 150 kB
WINDOW_SECONDS = 30.0  # what is read of a long recording, from its first sound


def load_reference(
    source: AudioSource, sample_rate: int | None = None, *, target_rate: int = 24_000
) -> Tensor:
    """The voice in a recording as the model hears it: (S,) mono float32, speech at -26 dBFS.

    Outer silence is trimmed, then the first 7.9 s are kept and a warning logged if there was more.
    Of a long recording only 30 s from the first sound are read.

    Args:
        source: as for `load_audio`.
        sample_rate: in Hz, of an array or tensor.
        target_rate: sample rate of the result in Hz.

    Raises:
        AudioError: as `load_audio`; also silent (below -60 dBFS) or less than 1 s of speech.
    """
    with open_blocks(source, sample_rate) as (rate, blocks):
        waveform = _from_first_sound(blocks, rate)
    waveform = resample(waveform - waveform.mean(), rate, target_rate)
    level = active_level_db(waveform, target_rate)
    if level < SILENCE_DB:
        raise AudioError(
            f"{source_name(source)} is silent: its level is {level:.0f} dBFS, at least "
            f"{SILENCE_DB:.0f} is needed. Record 3 to 8 s of clear speech."
        )
    speech = trim_silence(waveform, target_rate)
    seconds = speech.numel() / target_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{source_name(source)} has {seconds:.2f} s of speech; at least {MIN_SECONDS:g} s is "
            "needed, and 3 to 8 s are best."
        )
    if seconds > MAX_SECONDS:
        logger.warning(
            "%s: only the first %.1f s of speech are used.", source_name(source), MAX_SECONDS
        )
        speech = speech[: round(MAX_SECONDS * target_rate)]
    return set_level(speech, target_rate, LEVEL_DB)


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
