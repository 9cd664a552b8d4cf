"""A prepared folder: its files, and the utterances in it.

utterances.jsonl   one `Utterance` a line
mels.f16           (frames, M) float16, log-mel in nats, floor 1e-7
audio.i16          (samples,) int16, 24 kHz, active speech at -26 dBFS
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError

LINES_FILE, MELS_FILE, AUDIO_FILE = "utterances.jsonl", "mels.f16", "audio.i16"


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


def read_utterances(folder: Path) -> list[Utterance]:
    """Every utterance of a prepared folder, those that were dropped too.

    Raises:
        InputError: the folder was not made by `prepare`.
    """
    path = folder / LINES_FILE
    if not path.is_file():
        raise InputError(f"{folder} holds no utterances.jsonl. Make it with: stepflow-tts prepare")
    with open(path, encoding="utf-8") as lines:
        return [Utterance(**json.loads(line)) for line in lines]


def write_utterances(folder: Path, utterances: list[Utterance]) -> None:
    """Replace the list of a prepared folder in one move."""
    partial = folder / f"{LINES_FILE}.partial"
    with open(partial, "wb") as lines:
        lines.writelines(to_line(u) for u in utterances)
    os.replace(partial, folder / LINES_FILE)


def to_line(u: Utterance) -> bytes:
    """An utterance as it is written."""
    return (json.dumps(dataclasses.asdict(u), ensure_ascii=False) + "\n").encode()


def open_mels(folder: Path, config: MelConfig) -> np.ndarray[Any, np.dtype[np.float16]]:
    """(frames, M) float16 log-mels of a prepared folder, memory-mapped and read-only."""
    return np.memmap(folder / MELS_FILE, np.float16, "r").reshape(-1, config.n_mels)


def open_audio(folder: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(samples,) int16 audio of a prepared folder, memory-mapped and read-only."""
    return np.memmap(folder / AUDIO_FILE, np.int16, "r")
