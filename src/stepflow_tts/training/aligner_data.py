"""What the aligner learns from: frame labels of known durations, and speech made to sound recorded."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stepflow_tts.config import MelConfig
from stepflow_tts.text.tokenizer import BOS, EOS
from stepflow_tts.training.aligner_model import (
    LOG_FLOOR,
    NUM_BANDS,
    PAUSE,
    can_pause,
    is_optional,
)

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

SILENCE_DEPTH = 5.6  # nats (49 dB) below the loudest frame: measured between [f] and breath
MIN_PHONE_FRAMES = 3
CROP_FRAMES = 384  # 4.1 s
IGNORED = -100  # label of frames that are left out of the loss


class Labelled(NamedTuple):
    """One utterance with known durations."""

    log_mel: FloatArray  # (T, M)
    token_ids: list[int]
    durations: list[int]  # frames, sum T


def silent_frames(log_mel: FloatArray) -> BoolArray:
    """(T,) True where a frame of (T, M) is 49 dB below the loudest."""
    level = np.log(np.exp(log_mel[:, :NUM_BANDS].astype(np.float32)).mean(axis=1))
    silent: BoolArray = level < level.max() - SILENCE_DEPTH
    return silent


def settle_silence(
    log_mel: FloatArray, symbols: Sequence[str], durations: Sequence[int]
) -> list[int]:
    """Durations in which the silence after a phone belongs to the punctuation or end that follows.

    Kokoro counts some 300 ms of silence into the last phone before a pause, where recordings have
    it in the pause. What is settled already stays as it is.

    Args:
        log_mel: (T, M) in nats, of the clean utterance.
        symbols: one for each token, begin and end included.
        durations: frames of each token, sum T.
    """
    silent = silent_frames(log_mel)
    ends = np.cumsum(durations)
    settled = list(durations)
    for first, stop in _pauses(symbols):
        taker = next((i for i in range(first, stop) if symbols[i] != " "), None)
        if taker is None or first == 0:
            continue
        end = int(ends[first - 1])
        quiet = 0
        while quiet < end and silent[end - 1 - quiet]:
            quiet += 1
        for k in range(first - 1, 0, -1):
            is_phone = not is_optional(symbols[k])
            moved = max(0, min(quiet, settled[k] - (MIN_PHONE_FRAMES if is_phone else 0)))
            settled[k] -= moved
            settled[taker] += moved
            quiet -= moved
            if is_phone:
                break
    return settled


def _pauses(symbols: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and one past the last of every run of tokens that can pause."""
    first = None
    for i, symbol in enumerate(symbols):
        if can_pause(symbol):
            first = i if first is None else first
        elif first is not None:
            yield first, i
            first = None
    if first is not None:
        yield first, len(symbols)


def frame_labels(utterance: Labelled, symbols: Sequence[str]) -> IntArray:
    """(T,) class of each frame: its token, or PAUSE where a token that can pause is silent.

    Frames of begin and end that are not silent have no label (IGNORED).
    """
    ids = np.array(utterance.token_ids)
    labels = np.repeat(ids, utterance.durations)
    pausing = np.array([can_pause(s) for s in symbols])[labels]
    outer = np.array([s in (BOS, EOS) for s in symbols])[labels]
    silent = silent_frames(utterance.log_mel)
    labels[outer & ~silent] = IGNORED
    labels[pausing & silent] = PAUSE
    return labels


def crop(
    log_mel: FloatArray, labels: IntArray, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A stretch of an utterance at another speed: (CROP_FRAMES, M) and (CROP_FRAMES,)."""
    speed = float(torch.empty(()).uniform_(0.75, 1.3, generator=generator))
    wanted = round(CROP_FRAMES * speed)
    first = int(torch.randint(0, max(1, len(labels) - wanted + 1), (), generator=generator))
    taken = min(wanted, len(labels) - first)
    position = torch.arange(CROP_FRAMES) * speed  # (CROP_FRAMES,) in source frames
    inside = position < taken - 0.5
    low = position.long().clamp(max=taken - 1)
    high = (low + 1).clamp(max=taken - 1)
    share = (position - low).clamp(0, 1)[:, None]
    mel = torch.from_numpy(log_mel[first : first + taken].astype(np.float32))
    mel = torch.lerp(mel[low], mel[high], share)  # (CROP_FRAMES, M)
    target = torch.from_numpy(labels[first : first + taken])
    target = torch.where(inside, target[(position + 0.5).long().clamp(max=taken - 1)], IGNORED)
    return torch.where(inside[:, None], mel, LOG_FLOOR), target


def as_recorded(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Clean log-mels (B, T, M) as other speakers, rooms, microphones and lines would give them."""
    size = len(log_mel)
    mel = _warp_bands(log_mel, _uniform(size, 0.9, 1.12, generator))
    reverberant = _uniform(size, 0, 1, generator) < 0.5
    ratio = _uniform(size, 0.03, 0.4, generator) * reverberant
    mel = _reverberate(mel, ratio, _uniform(size, 0.15, 0.6, generator))
    level = torch.logsumexp(2 * mel, dim=(1, 2)) - math.log(mel.shape[1] * mel.shape[2])  # (B,)
    depth = _uniform(size, 5, 55, generator) * math.log(10) / 10  # SNR of 5 to 55 dB, in nats
    curve = 2 * _smooth_curve(size, 1.2, mel.shape[2], generator)  # (B, 1, M)
    noise = torch.randn((3, *mel.shape), generator=generator).square().mean(0)
    power = (level - depth)[:, None, None] + curve + torch.log(noise + 1e-6)  # (B, T, M)
    mel = torch.logaddexp(2 * mel, power) / 2
    colour = _smooth_curve(size, 0.7, mel.shape[2], generator)
    mel = mel + colour + _uniform(size, -1.0, 0.7, generator)[:, None, None]
    narrow = _uniform(size, 0, 1, generator) < 0.25
    cutoff = torch.where(narrow, _uniform(size, 45, NUM_BANDS, generator), mel.shape[2])
    kept = torch.arange(mel.shape[2]) < cutoff[:, None, None]
    return torch.where(kept, mel, LOG_FLOOR)


def _uniform(size: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(size,) numbers between `low` and `high`."""
    return torch.empty(size).uniform_(low, high, generator=generator)


def _smooth_curve(size: int, deviation: float, bands: int, generator: torch.Generator) -> Tensor:
    """(size, 1, bands) random curves through six points, nats."""
    points = deviation * torch.randn((size, 1, 6), generator=generator)
    return F.interpolate(points, bands, mode="linear", align_corners=True)


def _warp_bands(log_mel: Tensor, factor: Tensor) -> Tensor:
    """Spectra (B, T, M) stretched along the bands by `factor` (B,): other vocal tracts."""
    bands = log_mel.shape[2]
    position = (torch.arange(bands) * factor[:, None]).clamp(max=bands - 1.001)  # (B, M)
    low = position.long()
    share = (position - low)[:, None]  # (B, 1, M)
    low = low[:, None].expand_as(log_mel)
    return torch.lerp(log_mel.gather(2, low), log_mel.gather(2, low + 1), share)


def _reverberate(log_mel: Tensor, ratio: Tensor, decay_seconds: Tensor) -> Tensor:
    """Log-mels (B, T, M) with an exponential tail of `ratio` (B,) times the direct power."""
    taps = torch.arange(1, 41) / MelConfig().frame_rate  # seconds after the direct sound
    tail = torch.exp(-13.8 * taps / decay_seconds[:, None])  # 60 dB down at the decay time
    tail = tail / tail.sum(1, keepdim=True) * ratio[:, None]  # (B, 40)
    kernel = torch.cat((tail.flip(1), torch.ones(len(tail), 1)), 1)[:, None, :, None]
    power = F.pad(torch.exp(2 * log_mel.clamp(min=LOG_FLOOR)), (0, 0, 40, 0))  # (B, 40 + T, M)
    heard = F.conv2d(power[None], kernel, groups=len(kernel))[0]  # (B, T, M)
    return torch.log(heard) / 2
