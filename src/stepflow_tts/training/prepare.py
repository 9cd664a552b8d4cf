"""Recordings to memory-mapped mels, audio, tokens and durations.

They come from a manifest, or from one of the other `layouts`. A manifest is JSON lines with `audio` (a path beside the manifest), `speaker` and `text`, and where
known `id`, `accent` (en-us | en-gb), `phonemes`, `durations_ms` (of each phoneme character), `pad_ms`
(silence before and after), `source_sample_rate`, `text_kind`.

What is not finished yet lies in FOLDER.partial, with a progress.json after its first whole source.
"""

import dataclasses
import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from stepflow_tts.files import write_atomic
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.layouts import Recording, Source, find_sources
from stepflow_tts.training.utterances import (
    AUDIO_FILE,
    LINES_FILE,
    MELS_FILE,
    Utterance,
    read_utterances,
    to_line,
    write_utterances,
)

logger = logging.getLogger(__name__)

OUTER_SILENCE_MS = 100.0  # what begin and end tokens carry at most
HELD_OUT_PERCENT = 3  # of the speakers
NO_TEXT = ("partial", "none")  # kinds of text that cannot be aligned
FEWEST_TO_SPLIT = 20  # utterances of too few speakers to keep one of these back
PROGRESS_FILE = "progress.json"


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance on its way to disk."""

    entry: dict[str, Any]
    corpus: str
    speaker: str
    waveform: Tensor  # (S,)
    source_sample_rate: float
    token_ms: list[float] | None  # begin, every phoneme, end


@dataclass(slots=True)
class Progress:
    """What a folder that is being written holds whole."""

    variants: int
    seed: int
    sources: list[str] = field(default_factory=list)
    line_bytes: int = 0
    frames: int = 0
    samples: int = 0
    splits: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"written": 0})

    def count(self, reason: str) -> None:
        """One more of these."""
        self.counts[reason] = self.counts.get(reason, 0) + 1


def prepare(paths: list[Path], folder: Path, *, variants: int = 0, seed: int = 0) -> dict[str, int]:
    """Counts of what was written and what was left out, by reason.

    After a failure the sources that were whole are kept, and the same call goes on behind them.

    Args:
        paths: manifests, folders or shards, as `layouts` knows them.
        folder: where the prepared data goes; it must not exist yet.
        variants: new speakers made of every utterance with known durations, by playing it at a rate
            of 0.87 to 1.15 that is fixed for the speaker.
        seed: of those rates.

    Raises:
        OptionError: the folder exists.
        InputError: a source cannot be read, or none of its audio can.
        OSError: the disk is full.
    """
    if folder.exists():
        raise OptionError(f"{folder} exists already. Name a new folder, or remove it first.")
    sources = [source for path in paths for source in find_sources(path)]
    partial = folder.with_name(folder.name + ".partial")
    progress = _resume(partial, sources, Progress(variants, seed))
    try:
        for source in sources[len(progress.sources) :]:
            _write(source, partial, progress)
            progress.sources.append(str(source.path))
            write_atomic(partial / PROGRESS_FILE, json.dumps(dataclasses.asdict(progress)).encode())
        if not progress.counts["written"]:
            names = ", ".join(map(str, paths))
            raise InputError(f"None of the utterances in {names} can be read.")
    except BaseException as error:
        if progress.sources and progress.counts["written"]:
            logger.warning(
                "%d of %d sources are whole and kept in %s; the same command goes on behind them",
                len(progress.sources),
                len(sources),
                partial,
            )
        else:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror}, while writing {partial}") from error
        raise
    if len(progress.splits) < 2:
        write_utterances(partial, split_by_utterance(read_utterances(partial)))
    (partial / PROGRESS_FILE).unlink()
    os.replace(partial, folder)
    return progress.counts


def _resume(partial: Path, sources: list[Source], new: Progress) -> Progress:
    """How far an earlier call for the same sources came; an empty folder where there was none."""
    try:
        found = Progress(**json.loads((partial / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = new
    names = [str(source.path) for source in sources]
    same = (found.variants, found.seed) == (new.variants, new.seed)
    if not found.sources or not same or names[: len(found.sources)] != found.sources:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return new
    logger.info("%d of %d sources are done", len(found.sources), len(sources))
    os.truncate(partial / LINES_FILE, found.line_bytes)
    os.truncate(partial / MELS_FILE, 2 * MelConfig().n_mels * found.frames)
    os.truncate(partial / AUDIO_FILE, 2 * found.samples)
    return found


def _write(source: Source, partial: Path, progress: Progress) -> None:
    """Add the utterances of a source to the three files of a prepared folder."""
    mel, tokenizer = MelConfig(), Tokenizer()
    with (
        open(partial / LINES_FILE, "ab") as lines,
        open(partial / MELS_FILE, "ab") as mels,
        open(partial / AUDIO_FILE, "ab") as audio,
    ):
        for clip in _clips(source, progress):
            features = log_mel(clip.waveform[None], mel)[0]  # (T, M)
            u = _utterance(clip, len(features), progress.frames, progress.samples, tokenizer, mel)
            lines.write(to_line(u))
            mels.write(features.to(torch.float16).numpy().tobytes())
            audio.write((clip.waveform * 32767).round().to(torch.int16).numpy().tobytes())
            progress.frames += u.num_frames
            progress.samples += u.num_samples
            progress.count("written")
            if u.dropped is not None:
                progress.count(f"written without durations to come: {u.dropped}")
            if u.split not in progress.splits:
                progress.splits.append(u.split)
            if progress.counts["written"] % 500 == 0:
                hours = progress.samples / mel.sample_rate / 3600
                logger.info("%d utterances, %.2f h", progress.counts["written"], hours)
        lines.flush()
        progress.line_bytes = lines.tell()


def split_by_utterance(utterances: list[Utterance]) -> list[Utterance]:
    """The last 3 % kept back, at least two; for corpora without a speaker on one of the sides."""
    if len(utterances) < FEWEST_TO_SPLIT:
        return utterances
    first = len(utterances) - max(2, len(utterances) * HELD_OUT_PERCENT // 100)
    return [
        dataclasses.replace(u, split="train" if i < first else "held_out")
        for i, u in enumerate(utterances)
    ]


def _clips(source: Source, progress: Progress) -> Iterator[Clip]:
    """Every usable utterance of a source, and its variants; the others are counted by reason."""
    for recording in source.read(source.path):
        fields = recording.fields
        if fields.get("language", "en") != "en":
            progress.count(f"language {fields['language']}")
            continue
        try:
            clip = _clip(recording, source.corpus)
        except InputError as error:
            logger.warning("%s is left out: %s", fields["audio"], error)
            progress.count("unreadable")
            continue
        yield clip
        if clip.token_ms is None:
            continue
        for i in range(progress.variants):
            rng = random.Random(f"{progress.seed}/{clip.speaker}/{i}")
            yield _variant(clip, rng.uniform(0.87, 1.15))


def _clip(recording: Recording, corpus: str) -> Clip:
    """The sound of an entry, mono 24 kHz, levelled, with at most 100 ms of outer silence."""
    entry, target_rate = recording.fields, MelConfig().sample_rate
    waveform, rate = load_audio(recording.audio)
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
    return Clip(entry, corpus, entry["speaker"], waveform, source_rate, token_ms)


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
        dropped=_unusable(entry),
    )


def _unusable(entry: dict[str, Any]) -> str | None:
    """Why an utterance cannot be aligned, as far as its text tells."""
    if entry.get("text_kind") in NO_TEXT:
        return "no text"
    return "unknown words" if "<unk>" in entry["text"].lower() else None


def frames_of(token_ms: list[float], num_frames: int, mel: MelConfig) -> list[int]:
    """Whole frames of tokens that last `token_ms`: differences of rounded ends; they sum to num_frames."""
    ends = np.round(np.cumsum(token_ms) / 1000 * mel.frame_rate).astype(int).clip(0, num_frames)
    ends[-1] = num_frames
    return [int(d) for d in np.diff(ends, prepend=0)]


def is_held_out(speaker: str) -> bool:
    """Whether a speaker is kept for validation: a fixed draw by name."""
    return hashlib.sha256(speaker.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256
