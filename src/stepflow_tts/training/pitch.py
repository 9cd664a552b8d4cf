"""Pitch, voicing and pulse phase of recordings: what the vocoder's source is taught."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stepflow_tts.audio.effects import resample
from stepflow_tts.config import MelConfig
from stepflow_tts.models.source import (
    BINS_PER_OCTAVE,
    LOWEST_HZ,
    Pitch,
    candidate_hz,
    carry,
    integrate,
)
from stepflow_tts.training.utterances import open_audio, read_utterances

Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger(__name__)

PITCH_FILE = "pitch.f32"

TRACKING_RATE = 8000  # enough for lags; the phases then give the exact pitch
WINDOW_SECONDS = 0.048
UNVOICED_COST = (
    0.5  # a frame is voiced where its correlation is above half, if its neighbours agree
)
QUIET_DISCOUNT = 0.35  # off the cost of unvoiced in frames 45 dB below the loudest
QUIET_DB = 45.0
OCTAVE_COST = 0.04  # for each octave down: every multiple of a period correlates as well
JUMP_COST = 0.7  # for each octave between neighbouring frames
SWITCH_COST = 0.25  # for each change between voiced and unvoiced
LONGEST_JUMP = 24  # candidates, half an octave in 11 ms


def track_pitch(waveform: Tensor, mel: MelConfig) -> Pitch:
    """Pitch, pulse phase and voicing at every frame centre of one recording.

    Args:
        waveform: (S,) in [-1, 1] at `mel.sample_rate`.
        mel: frame sizes.

    Returns:
        Tensors (1, T), T = 1 + S // hop_length. The phase is that of the fundamental in the recording.

    Source: normalized correlation and dynamic programming as in Talkin's RAPT (1995).
    """
    correlation, power = _correlation(waveform, mel)  # (T, C), (T,)
    chosen = _best_path(correlation.numpy(), power.numpy())  # (T,) C = unvoiced
    voiced = torch.from_numpy(chosen < correlation.shape[1])
    octaves = torch.from_numpy(chosen).float() / BINS_PER_OCTAVE
    f0 = LOWEST_HZ * 2 ** carry(octaves[None], voiced[None])
    return _follow_phases(waveform, f0, voiced[None], mel)


def _correlation(waveform: Tensor, mel: MelConfig) -> tuple[Tensor, Tensor]:
    """Correlation of every frame with itself one period later (T, C), -1 to 1, and its power (T,)."""
    low = resample(waveform[None], mel.sample_rate, TRACKING_RATE)[0]
    window = round(WINDOW_SECONDS * TRACKING_RATE)  # 384
    num_lags = int(TRACKING_RATE / LOWEST_HZ) + 3
    length = window + num_lags
    num_frames = 1 + waveform.shape[0] // mel.hop_length
    centres = torch.arange(num_frames) * (mel.hop_length * TRACKING_RATE / mel.sample_rate)
    padded = F.pad(low, (length, length))
    starts = centres.round().long() - length // 2 + length
    frames = padded[starts[:, None] + torch.arange(length)]  # (T, length)
    frames = frames - frames.mean(dim=1, keepdim=True)
    size = 2 ** math.ceil(math.log2(length + window))
    head = torch.fft.rfft(frames[:, :window], size)
    product = torch.fft.irfft(head.conj() * torch.fft.rfft(frames, size), size)[:, :num_lags]
    energy = F.pad(frames.square().cumsum(dim=1), (1, 0))
    lags = torch.arange(num_lags)
    here, later = energy[:, window, None], energy[:, window + lags] - energy[:, lags]
    normal = 2 * product / (here + later + 1e-7 * window)  # (T, lags)
    # Catmull-Rom between lags: at 500 Hz they are 6 % apart.
    exact = TRACKING_RATE / candidate_hz()
    left = exact.long()
    w = exact - left
    p0, p1, p2, p3 = (normal[:, (left + k).clamp(1, num_lags - 1)] for k in (-1, 0, 1, 2))
    slope = p2 - p0 + w * (2 * p0 - 5 * p1 + 4 * p2 - p3 + w * (3 * (p1 - p2) + p3 - p0))
    return p1 + 0.5 * w * slope, here[:, 0] / window


def _best_path(correlation: Array, power: Array) -> Array:
    """The cheapest candidate of every frame (T,); the number of candidates stands for unvoiced."""
    num_frames, num = correlation.shape
    octaves_down = np.arange(num)[::-1] / BINS_PER_OCTAVE
    costs = 1 - correlation.clip(0, 1) + OCTAVE_COST * octaves_down  # (T, C)
    level = 10 * np.log10(power + 1e-10)
    unvoiced_costs = UNVOICED_COST - QUIET_DISCOUNT * (level < level.max() - QUIET_DB)  # (T,)
    reach = np.arange(-LONGEST_JUMP, LONGEST_JUMP + 1)
    jumps = np.abs(reach) / BINS_PER_OCTAVE * JUMP_COST
    rows = np.arange(num)
    padded = np.full(num + 2 * LONGEST_JUMP, np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(reach))  # (C, reach)
    voiced = padded[LONGEST_JUMP : LONGEST_JUMP + num]  # totals up to the last frame; a view
    voiced[:] = costs[0]
    unvoiced = float(unvoiced_costs[0])
    came_from = np.zeros((num_frames, num + 1), np.int64)
    for t in range(1, num_frames):
        arriving = windows + jumps
        nearest = arriving.argmin(axis=1)
        total = arriving[rows, nearest]
        starts = unvoiced + SWITCH_COST < total
        came_from[t, :num] = np.where(starts, num, rows + reach[nearest])
        last = int(voiced.argmin())
        ends = voiced[last] + SWITCH_COST < unvoiced
        came_from[t, num] = last if ends else num
        total = np.where(starts, unvoiced + SWITCH_COST, total)
        unvoiced = min(float(voiced[last]) + SWITCH_COST, unvoiced) + float(unvoiced_costs[t])
        voiced[:] = total + costs[t]
    path = np.empty(num_frames, np.int64)
    path[-1] = num if unvoiced < voiced.min() else voiced.argmin()
    for t in range(num_frames - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def _follow_phases(waveform: Tensor, f0: Tensor, voiced: Tensor, mel: MelConfig) -> Pitch:
    """The pitch (1, T) made exact by the harmonics' phases, and the fundamental's phase."""
    spectrum = _centred_spectrum(waveform, mel)[:, : f0.shape[1]]  # (1, T, F)
    bin_hz = mel.sample_rate / mel.n_fft
    turn = 2 * math.pi
    both = voiced[:, 1:] & voiced[:, :-1]
    f0_exact = f0
    for num_harmonics in (
        3,
        6,
        10,
    ):  # upper ones are exacter, but turn too far if the pitch is wrong
        k = torch.arange(1, num_harmonics + 1)
        middle = 0.5 * (f0_exact[:, 1:] + f0_exact[:, :-1])  # (1, T - 1)
        bins = (k * middle[..., None] / bin_hz).round().long()  # (1, T - 1, K)
        usable = (bins >= 2) & (bins * bin_hz < 4000)
        bins = bins.clamp(max=spectrum.shape[2] - 1)
        before, after = spectrum[:, :-1].gather(2, bins), spectrum[:, 1:].gather(2, bins)
        expected = turn * k * middle[..., None] / mel.frame_rate
        missing = torch.angle(
            after * before.conj() * torch.polar(torch.ones_like(expected), -expected)
        )
        weight = (before.abs() * after.abs()).sqrt() * usable
        error = (weight * k * missing).sum(dim=-1) / (weight * k * k).sum(dim=-1).clamp(min=1e-9)
        limit = 0.03 * turn * middle / mel.frame_rate
        error = torch.where(both, error.clamp(-limit, limit), 0.0)
        middle = middle + error * mel.frame_rate / turn
        smooth = F.pad(0.5 * (middle[:, 1:] + middle[:, :-1]), (1, 1))
        smooth[:, 0], smooth[:, -1] = middle[:, 0], middle[:, -1]
        f0_exact = torch.where(voiced, smooth, carry(f0, voiced))
    phase = _align(spectrum, f0_exact, voiced, integrate(f0_exact, mel), bin_hz)
    return Pitch(f0_exact, phase, voiced.float())


def _align(spectrum: Tensor, f0: Tensor, voiced: Tensor, phase: Tensor, bin_hz: float) -> Tensor:
    """`phase` (1, T) turned to that of the fundamental, as a mean over nine frames."""
    bins = (f0 / bin_hz).round().long().clamp(min=1)
    fundamental = spectrum.gather(2, bins[..., None])[..., 0]  # (1, T)
    ahead = fundamental * torch.polar(torch.ones_like(phase), -phase) * voiced
    kernel = torch.hann_window(11, periodic=False)[1:-1].expand(2, 1, -1)
    parts = torch.view_as_real(ahead).transpose(1, 2)  # (1, 2, T)
    parts = F.conv1d(parts, kernel, padding=4, groups=2)
    return phase + torch.atan2(parts[:, 1], parts[:, 0])


def _centred_spectrum(waveform: Tensor, mel: MelConfig) -> Tensor:
    """(1, T, F) whose phases are those at the frames' middles."""
    window = torch.hann_window(mel.n_fft)
    spectrum = torch.stft(
        waveform[None],
        mel.n_fft,
        mel.hop_length,
        window=window,
        pad_mode="constant",
        return_complex=True,
    ).transpose(1, 2)
    return spectrum * (1 - 2 * (torch.arange(spectrum.shape[2]) % 2))


def write_pitch(folder: Path, mel: MelConfig) -> None:
    """Tracks every utterance of a prepared folder into `pitch.f32`: (frames, 3) f0, phase, voiced."""
    audio = open_audio(folder)
    utterances = read_utterances(folder)
    num_frames = max(u.start_frame + u.num_frames for u in utterances)
    partial = folder / (PITCH_FILE + ".partial")
    rows = np.memmap(partial, np.float32, "w+", shape=(num_frames, 3))
    for number, u in enumerate(utterances, 1):
        samples = audio[u.start_sample : u.start_sample + u.num_samples].astype(np.float32) / 32767
        pitch = track_pitch(torch.from_numpy(samples), mel)
        rows[u.start_frame : u.start_frame + u.num_frames] = torch.cat(pitch).T.numpy()
        if number % 500 == 0:
            logger.info("pitch of %d of %d utterances", number, len(utterances))
    rows.flush()
    os.replace(partial, folder / PITCH_FILE)


def open_pitch(folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(frames, 3) f0, phase and voicing of a prepared folder, memory-mapped and read-only."""
    return np.memmap(folder / PITCH_FILE, np.float32, "r").reshape(-1, 3)
