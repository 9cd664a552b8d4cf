"""The trajectories on disk, and batches of them.

A folder holds `trajectories.jsonl` (one `Trajectory` a line), `settings.json` (the `Settings` that
all of them share) and `states.f16`: for every trajectory its reference (Tr, M), then the states at
t = 1/4, 1/2, 3/4 and 1, each (T, M), all normalized log-mels. The noise at t = 0 is drawn again from
its seed.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepflow_tts.config import MelConfig, from_dict
from stepflow_tts.errors import CheckpointFormatError, InputError
from stepflow_tts.models.shapes import FRAME_STEP, TOKEN_STEP, round_up

INDEX_FILE, STATES_FILE, SETTINGS_FILE = "trajectories.jsonl", "states.f16", "settings.json"
NUM_STATES = 4  # kept after the noise: t = 1/4, 1/2, 3/4, 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What says where a trajectory leads; the same for all of a folder."""

    noise_scale: float
    cfg_strength: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One line of a trajectory folder."""

    offset: int  # of its first float16 in states.f16
    num_frames: int
    reference_frames: int
    seed: int
    token_ids: list[int]
    durations: list[int]


class TrajectoryBatch(NamedTuple):
    """Trajectories side by side."""

    states: Tensor  # (5, B, T, M): the noise, then t = 1/4, 1/2, 3/4, 1; zero after an item's end
    frame_mask: Tensor  # (B, T) bool, True = real
    token_ids: Tensor  # (B, L)
    token_mask: Tensor  # (B, L) bool, True = real
    durations: Tensor  # (B, L) frames
    reference: Tensor  # (B, Tr, M), cropped to one length


def noise_of(seed: int, num_frames: int, n_mels: int, scale: float) -> Tensor:
    """(T, M) noise of a trajectory."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_frames, n_mels, generator=generator)


def read_settings(folder: Path) -> Settings:
    """What the trajectories of a folder were made with.

    Raises:
        InputError: the folder does not say, or not in a way that this version reads.
    """
    path = folder / SETTINGS_FILE
    try:
        return from_dict(Settings, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (OSError, ValueError, CheckpointFormatError) as error:
        raise InputError(
            f"{path} does not say how the trajectories in its folder were made ({error}). Remove "
            "that folder and make them anew with: stepflow-tts train trajectories"
        ) from error


def read_trajectories(folder: Path) -> list[Trajectory]:
    """Every whole trajectory of a folder.

    Raises:
        InputError: there is none.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} holds no trajectories. Make them with: stepflow-tts train distill"
        )
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Trajectory(**json.loads(line)) for line in lines if line.endswith("\n")]


class Trajectories:
    """The trajectories of a folder, and batches of them by (seed, step)."""

    def __init__(self, folder: Path, batch_seconds: float, seed: int) -> None:
        """Open the folder.

        Args:
            folder: made by `make_trajectories`.
            batch_seconds: of speech in a batch.
            seed: of the batches.

        Raises:
            InputError: it holds no trajectory, or does not say how they were made.
        """
        self.items = sorted(read_trajectories(folder), key=lambda t: t.num_frames)
        if not self.items:
            raise InputError(
                f"{folder} holds no trajectories yet. Make some with: stepflow-tts train distill"
            )
        mel = MelConfig()
        self.n_mels, self.seed, self.noise_scale = (
            mel.n_mels,
            seed,
            read_settings(folder).noise_scale,
        )
        self.states: np.ndarray[Any, np.dtype[np.float16]] = np.memmap(
            folder / STATES_FILE, np.float16, "r"
        )
        self.budget = batch_seconds * mel.frame_rate  # frames
        self.ends = np.cumsum([t.num_frames for t in self.items])
        self.hours = float(self.ends[-1]) / mel.frame_rate / 3600

    def batch(self, step: int) -> TrajectoryBatch:
        """Neighbours by length around one drawn by its frames."""
        rng = random.Random(f"{self.seed}/{step}")
        middle = int(np.searchsorted(self.ends, rng.random() * self.ends[-1], side="right"))
        count = max(1, round(self.budget / self.items[middle].num_frames))
        low = max(0, min(middle - count, len(self.items) - 2 * count))
        window = self.items[low : low + 2 * count]
        return self.collate(rng.sample(window, min(count, len(window))))

    def collate(self, items: Sequence[Trajectory]) -> TrajectoryBatch:
        """The trajectories side by side."""
        num_frames = round_up(max(t.num_frames for t in items), FRAME_STEP)
        num_tokens = round_up(max(len(t.token_ids) for t in items), TOKEN_STEP)
        shortest = min(t.reference_frames for t in items)
        states = torch.zeros(NUM_STATES + 1, len(items), num_frames, self.n_mels)
        reference = torch.empty(len(items), shortest, self.n_mels)
        token_ids = torch.zeros(len(items), num_tokens, dtype=torch.long)
        durations = torch.zeros(len(items), num_tokens, dtype=torch.long)
        for i, t in enumerate(items):
            rows = self.states[t.offset : t.offset + size_of(t, self.n_mels)].astype(np.float32)
            split = t.reference_frames * self.n_mels
            kept = torch.from_numpy(rows[split:]).view(NUM_STATES, t.num_frames, self.n_mels)
            reference[i] = torch.from_numpy(rows[:split]).view(-1, self.n_mels)[:shortest]
            states[0, i, : t.num_frames] = noise_of(
                t.seed, t.num_frames, self.n_mels, self.noise_scale
            )
            states[1:, i, : t.num_frames] = kept
            token_ids[i, : len(t.token_ids)] = torch.tensor(t.token_ids)
            durations[i, : len(t.durations)] = torch.tensor(t.durations)
        frame_mask = torch.arange(num_frames) < torch.tensor([[t.num_frames] for t in items])
        token_mask = torch.arange(num_tokens) < torch.tensor([[len(t.token_ids)] for t in items])
        return TrajectoryBatch(states, frame_mask, token_ids, token_mask, durations, reference)


def size_of(t: Trajectory, n_mels: int) -> int:
    """Float16s of a trajectory in states.f16."""
    return n_mels * (t.reference_frames + NUM_STATES * t.num_frames)
