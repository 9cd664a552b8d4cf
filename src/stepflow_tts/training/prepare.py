"""A manifest of recordings to memory-mapped mels, audio, tokens and durations.

A manifest is JSON lines with `audio` (a path beside the manifest), `speaker` and `text`, and where
known `id`, `accent` (en-us | en-gb), `phonemes`, `durations_ms` (of each phoneme character), `pad_ms`
(silence before and after), `source_sample_rate`, `text_kind`. Prepared folders hold:

    utterances.jsonl   one `Utterance` a line
    mels.f16           (frames, M) float16, log-mel in nats, floor 1e-7
    audio.i16          (samples,) int16, 24 kHz, active speech at -26 dBFS
"""

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepflow_tts.audio.effects import resample, set_level, trim_silence
from stepflow_tts.audio.io import load_audio
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError, OptionError
from stepflow_tts.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

OUTER_SILENCE_MS = 100.0  # what begin and end tokens carry at most
HELD_OUT_PERCENT = 3  # of the speakers
NO_TEXT = ("partial", "none")  # kinds of text that cannot be aligned


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a prepared folder."""

    id: str
    corpus: str  # the name of the folder that its manifest lies in
    speaker: str
    text: str
    language: str
    source_sample_rate: float  # nothing above half of it is in the sound
    start_frame: int
    num_frames: int
    start_sample: int
    num_samples: int
    phonemes: str | None
    token_ids: list[int] | None
    durations: list[int] | None  # frames of every token; they sum to num_frames
    split: str  # train | held_out, by speaker
    dropped: str | None = None  # why it is not used, if it is not


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance on its way to disk."""

    entry: dict[str, Any]
    corpus: str
    speaker: str
    waveform: Tensor  # (S,)
    source_sample_rate: float
    token_ms: list[float] | None  # begin, every phoneme, end


def prepare(
    manifests: list[Path], folder: Path, *, variants: int = 0, seed: int = 0
) -> dict[str, int]:
    """Counts of what was written and what was left out, by reason.

    Args:
        manifests: manifest.jsonl files.
        folder: where the prepared data goes; it must not exist yet.
        variants: new speakers made of every utterance with known durations, by playing it at a rate
            of 0.87 to 1.15 that is fixed for the speaker.
        seed: of those rates.

    Raises:
        OptionError: the folder exists.
        InputError: a manifest cannot be read, or none of its audio can.
    """
    if folder.exists():
        raise OptionError(f"{folder} exists already. Name a new folder, or remove it first.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        counts = _write(manifests, partial, variants, seed)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return counts


def _write(manifests: list[Path], partial: Path, variants: int, seed: int) -> dict[str, int]:
    """The three files of a prepared folder, and the counts."""
    counts: dict[str, int] = {"written": 0}
    mel, tokenizer = MelConfig(), Tokenizer()
    frames = samples = 0
    with (
        open(partial / "utterances.jsonl", "w", encoding="utf-8") as lines,
        open(partial / "mels.f16", "wb") as mels,
        open(partial / "audio.i16", "wb") as audio,
    ):
        for manifest in manifests:
            for clip in _clips(manifest, variants, seed, counts):
                features = log_mel(clip.waveform[None], mel)[0]  # (T, M)
                u = _utterance(clip, len(features), frames, samples, tokenizer, mel)
                lines.write(json.dumps(dataclasses.asdict(u), ensure_ascii=False) + "\n")
                mels.write(features.to(torch.float16).numpy().tobytes())
                audio.write((clip.waveform * 32767).round().to(torch.int16).numpy().tobytes())
                frames, samples = frames + u.num_frames, samples + u.num_samples
                counts["written"] += 1
                if counts["written"] % 500 == 0:
                    logger.info("%d utterances, %.2f h", counts["written"], samples / 86.4e6)
    if not counts["written"]:
        raise InputError(f"None of the utterances in {', '.join(map(str, manifests))} can be read.")
    return counts


def read_utterances(folder: Path) -> list[Utterance]:
    """Every utterance of a prepared folder, those that were dropped too.

    Raises:
        InputError: the folder was not made by `prepare`.
    """
    path = folder / "utterances.jsonl"
    if not path.is_file():
        raise InputError(f"{folder} holds no utterances.jsonl. Make it with: stepflow-tts prepare")
    with open(path, encoding="utf-8") as lines:
        return [Utterance(**json.loads(line)) for line in lines]


def write_utterances(folder: Path, utterances: list[Utterance]) -> None:
    """Replace the list of a prepared folder in one move."""
    partial = folder / "utterances.jsonl.partial"
    with open(partial, "w", encoding="utf-8") as lines:
        for u in utterances:
            lines.write(json.dumps(dataclasses.asdict(u), ensure_ascii=False) + "\n")
    os.replace(partial, folder / "utterances.jsonl")


def open_mels(folder: Path, config: MelConfig) -> np.ndarray[Any, np.dtype[np.float16]]:
    """(frames, M) float16 log-mels of a prepared folder, memory-mapped and read-only."""
    return np.memmap(folder / "mels.f16", np.float16, "r").reshape(-1, config.n_mels)


def open_audio(folder: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(samples,) int16 audio of a prepared folder, memory-mapped and read-only."""
    return np.memmap(folder / "audio.i16", np.int16, "r")


def _clips(manifest: Path, variants: int, seed: int, counts: dict[str, int]) -> Iterator[Clip]:
    """Every usable utterance of a manifest, and its variants; the others are counted by reason."""
    for entry in _entries(manifest):
        try:
            clip = _clip(manifest.resolve().parent, entry)
        except InputError as error:
            logger.warning("%s is left out: %s", entry["audio"], error)
            counts["unreadable"] = counts.get("unreadable", 0) + 1
            continue
        yield clip
        if clip.token_ms is None:
            continue
        for i in range(variants):
            yield _variant(clip, random.Random(f"{seed}/{clip.speaker}/{i}").uniform(0.87, 1.15))


def _entries(manifest: Path) -> Iterator[dict[str, Any]]:
    """The lines of a manifest."""
    try:
        # Not splitlines: JSON may hold U+2028 and its like as they are.
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The manifest {manifest} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{manifest}, line {number} is not JSON: {error}.") from error
        if not isinstance(entry, dict):
            raise InputError(f"{manifest}, line {number} is not a JSON object: {line[:80]}")
        lacking = [key for key in ("audio", "speaker", "text") if key not in entry]
        if lacking:
            raise InputError(f"{manifest}, line {number} lacks {lacking[0]!r}.")
        yield entry


def _clip(base: Path, entry: dict[str, Any]) -> Clip:
    """The sound of an entry, mono 24 kHz, levelled, with at most 100 ms of outer silence."""
    target_rate = MelConfig().sample_rate
    waveform, rate = load_audio(base / entry["audio"])
    token_ms = None
    if entry.get("durations_ms"):
        _check_durations(entry)
        before, after = entry["pad_ms"]
        begin, end = min(before, OUTER_SILENCE_MS), min(after, OUTER_SILENCE_MS)
        first = round((before - begin) / 1000 * rate)
        last = len(waveform) - round((after - end) / 1000 * rate)
        waveform = waveform[first:last]
        token_ms = [begin, *entry["durations_ms"], end]
    else:
        waveform = trim_silence(waveform, rate, keep_seconds=OUTER_SILENCE_MS / 1000)
    source_rate = float(entry.get("source_sample_rate") or rate)
    waveform = resample(waveform, rate, target_rate)
    waveform = set_level(waveform, target_rate)
    if len(waveform) < target_rate // 4:
        raise InputError("less than 0.25 s of sound")
    return Clip(entry, base.name, entry["speaker"], waveform, source_rate, token_ms)


def _check_durations(entry: dict[str, Any]) -> None:
    """Refuse durations that do not belong to the phonemes, and phonemes that have no symbol."""
    phonemes, durations, pad = (
        entry.get("phonemes") or "",
        entry["durations_ms"],
        entry.get("pad_ms"),
    )
    if len(phonemes) != len(durations):
        raise InputError(
            f"{len(durations)} durations_ms for {len(phonemes)} phonemes: each has one, in milliseconds"
        )
    if len(pad or ()) != 2:
        raise InputError(
            f"pad_ms is {pad!r}; beside durations_ms it must be the milliseconds of "
            "silence [before, after]"
        )
    Tokenizer().encode_strict(phonemes)


def _variant(clip: Clip, factor: float) -> Clip:
    """The clip played `factor` times as fast, pitch and all, as a speaker of its own."""
    rate = MelConfig().sample_rate
    # A loud clip overshoots between its samples, and int16 would wrap around.
    waveform = resample(clip.waveform, round(rate * factor), rate).clamp(-1.0, 1.0)
    assert clip.token_ms is not None
    return Clip(
        clip.entry | {"id": f"{clip.entry.get('id', clip.entry['audio'])}x{factor:.3f}"},
        clip.corpus,
        f"{clip.speaker}x{factor:.3f}",
        waveform,
        clip.source_sample_rate * factor,
        [ms / factor for ms in clip.token_ms],
    )


def _utterance(
    clip: Clip,
    num_frames: int,
    start_frame: int,
    start_sample: int,
    tokenizer: Tokenizer,
    mel: MelConfig,
) -> Utterance:
    """The line of a clip that is about to be written."""
    entry = clip.entry
    phonemes = token_ids = durations = None
    if clip.token_ms is not None:
        phonemes = entry["phonemes"]
        token_ids = tokenizer.encode_strict(phonemes)
        durations = frames_of(clip.token_ms, num_frames, mel)
    return Utterance(
        id=entry.get("id", entry["audio"]),
        corpus=clip.corpus,
        speaker=clip.speaker,
        text=entry["text"],
        language=entry.get("accent", "en-us"),
        source_sample_rate=round(clip.source_sample_rate, 1),
        start_frame=start_frame,
        num_frames=num_frames,
        start_sample=start_sample,
        num_samples=len(clip.waveform),
        phonemes=phonemes,
        token_ids=token_ids,
        durations=durations,
        split="held_out" if is_held_out(entry["speaker"]) else "train",
        dropped="no text" if entry.get("text_kind") in NO_TEXT else None,
    )


def frames_of(token_ms: list[float], num_frames: int, mel: MelConfig) -> list[int]:
    """Whole frames of tokens that last `token_ms`: differences of rounded ends; they sum to num_frames."""
    ends = np.round(np.cumsum(token_ms) / 1000 * mel.frame_rate).astype(int).clip(0, num_frames)
    ends[-1] = num_frames
    return [int(d) for d in np.diff(ends, prepend=0)]


def is_held_out(speaker: str) -> bool:
    """Whether a speaker is kept for validation: a fixed draw by name."""
    return hashlib.sha256(speaker.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256
