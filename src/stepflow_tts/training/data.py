"""Batches of utterances with a reference of the same speaker, drawn by (seed, step) alone."""

import dataclasses
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepflow_tts.audio.mel import band_centres, to_flow
from stepflow_tts.config import FlowConfig, MelConfig
from stepflow_tts.errors import InputError
from stepflow_tts.models.shapes import FRAME_STEP, TOKEN_STEP, round_up
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.aligner_model import can_pause
from stepflow_tts.training.degrade import degrade
from stepflow_tts.training.utterances import Utterance, open_mels, read_utterances

LONGEST_SECONDS = 12.0  # longer utterances are cut at pauses
SHORTEST_FRAMES = 40  # 0.43 s
PAUSE_FRAMES = 12  # 128 ms of a space or a mark is a pause to cut at; of a vowel it is not
PAUSING = frozenset(i for i, symbol in enumerate(DEFAULT_SYMBOLS) if can_pause(symbol))
BUCKET_RATIO = 1.12  # longest over shortest in a bucket

REFERENCE_STEP = 46  # frames, .49 s: references come in few lengths too


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What a batch is."""

    batch_seconds: float = 25.0
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Share of the batches by corpus name; those not named share the rest by their hours."""
    reference_seconds: tuple[float, float] = (1.5, 4.0)
    long_reference_seconds: float = 8.0  # one batch in ten draws up to this
    degrade_probability: float = 0.4


class Batch(NamedTuple):
    """Utterances side by side; mels normalized as the flow sees them."""

    x1: Tensor  # (B, T, M), zero after an item's end and in bands without sound
    frame_mask: Tensor  # (B, T) bool, True = real
    band_mask: Tensor  # (B, M) bool, True = inside the recording's bandwidth
    token_ids: Tensor  # (B, L)
    token_mask: Tensor  # (B, L) bool, True = real
    durations: Tensor  # (B, L) frames, zero for padding
    reference: Tensor  # (B, Tr, M), another utterance of the same speaker


@dataclass(frozen=True, slots=True)
class Item:
    """An utterance, or a part of one, and where its mel lies."""

    corpus: str
    speaker: str
    folder: int
    start_frame: int
    num_frames: int
    bandwidth: float  # Hz
    token_ids: Sequence[int]
    durations: Sequence[int]


class Corpus:
    """The items of some prepared folders, and batches of them."""

    def __init__(
        self, folders: Sequence[Path], split: str, config: DataConfig, flow: FlowConfig, seed: int
    ) -> None:
        """Open the folders.

        Args:
            folders: made by `prepare`, and by `align` where durations were missing.
            split: train or held_out.
            config: what a batch is.
            flow: normalization of the mels.
            seed: of every draw.

        Raises:
            InputError: nothing usable is in the folders.
        """
        self.config, self.flow, self.seed, self.mel = config, flow, seed, MelConfig()
        self.mels = [open_mels(folder, self.mel) for folder in folders]
        found = [
            piece
            for i, folder in enumerate(folders)
            for u in read_utterances(folder)
            if u.split == split and u.durations is not None and u.dropped is None
            for piece in cut_at_pauses(_item(u, i), round(LONGEST_SECONDS * self.mel.frame_rate))
            if piece.num_frames >= SHORTEST_FRAMES
        ]
        self.speakers: dict[str, list[Item]] = defaultdict(list)
        for item in found:
            self.speakers[item.speaker].append(item)
        alone = {s for s, items in self.speakers.items() if len(items) < 2}
        self.items = [item for item in found if item.speaker not in alone]
        if not self.items:
            where = ", ".join(map(str, folders))
            raise InputError(
                f"{where}: no {split} utterance has durations and a second one beside it."
            )
        self.items.sort(key=lambda item: item.num_frames)
        weights = _weights(self.items, config.shares)
        self.weights: list[float] = weights.tolist()
        self.buckets = _buckets(self.items)
        lengths = np.array([item.num_frames for item in self.items])
        mass = weights * lengths  # a bucket is drawn by frames: its batches hold fewer items
        self.bucket_weights = [float(mass[a:b].sum()) for a, b in self.buckets]
        self.centres = band_centres(self.mel)

    @property
    def hours(self) -> float:
        """Hours of speech in the items."""
        return sum(item.num_frames for item in self.items) / self.mel.frame_rate / 3600

    def batch(self, step: int) -> Batch:
        """The batch of an update: utterances of like length, `batch_seconds` in all."""
        rng = random.Random(f"{self.seed}/{step}")
        a, b = rng.choices(self.buckets, self.bucket_weights)[0]
        budget = self.config.batch_seconds * self.mel.frame_rate
        count = max(1, round(budget / self.items[b - 1].num_frames))
        items = rng.choices(self.items[a:b], self.weights[a:b], k=count)
        return self.collate(items, rng)

    def collate(self, items: Sequence[Item], rng: random.Random) -> Batch:
        """The items side by side, each with a reference drawn by `rng`."""
        num_frames = round_up(max(item.num_frames for item in items), FRAME_STEP)
        num_tokens = round_up(max(len(item.token_ids) for item in items), TOKEN_STEP)
        x1 = torch.zeros(len(items), num_frames, self.mel.n_mels)
        frame_mask = torch.zeros(len(items), num_frames, dtype=torch.bool)
        token_ids = torch.zeros(len(items), num_tokens, dtype=torch.long)
        durations = torch.zeros(len(items), num_tokens, dtype=torch.long)
        band_mask = torch.stack([self.centres < item.bandwidth for item in items])
        for i, item in enumerate(items):
            x1[i, : item.num_frames] = self._features(item) * band_mask[i]
            frame_mask[i, : item.num_frames] = True
            token_ids[i, : len(item.token_ids)] = torch.tensor(item.token_ids)
            durations[i, : len(item.durations)] = torch.tensor(item.durations)
        token_mask = torch.arange(num_tokens) < torch.tensor([[len(i.token_ids)] for i in items])
        reference = self._references(items, rng)
        return Batch(x1, frame_mask, band_mask, token_ids, token_mask, durations, reference)

    def _features(self, item: Item) -> Tensor:
        """(T, M) normalized mel of an item."""
        rows = self.mels[item.folder][item.start_frame : item.start_frame + item.num_frames]
        return to_flow(torch.from_numpy(rows.astype(np.float32)), self.flow)

    def _references(self, items: Sequence[Item], rng: random.Random) -> Tensor:
        """(B, Tr, M): other utterances of the speakers, one length for all, some degraded."""
        low, high = self.config.reference_seconds
        seconds = rng.uniform(low, high)
        if rng.random() < 0.1:
            seconds = rng.uniform(high, self.config.long_reference_seconds)
        length = REFERENCE_STEP * max(1, round(seconds * self.mel.frame_rate / REFERENCE_STEP))
        return torch.stack([self._reference(item, length, rng) for item in items])

    def _reference(self, item: Item, length: int, rng: random.Random) -> Tensor:
        """(Tr, M) of the speaker's other utterances, joined until there is enough, then cropped."""
        others = [other for other in self.speakers[item.speaker] if other is not item]
        rng.shuffle(others)
        parts: list[Tensor] = []
        have = 0
        while have < length:
            other = others[len(parts) % len(others)]
            parts.append(self._features(other))
            have += other.num_frames
        start = rng.randrange(have - length + 1) if len(parts) == 1 else 0
        joined = torch.cat(parts)[start : start + length]
        if rng.random() < self.config.degrade_probability:
            joined = degrade(joined, self.flow, self.centres, rng)
        return joined


def _item(u: Utterance, folder: int) -> Item:
    assert u.token_ids is not None
    assert u.durations is not None
    return Item(
        u.corpus,
        u.speaker,
        folder,
        u.start_frame,
        u.num_frames,
        0.98 * u.source_sample_rate / 2,
        u.token_ids,
        u.durations,
    )


def cut_at_pauses(item: Item, longest: int) -> list[Item]:
    """The item in two or more parts if it is longer than `longest` frames; whole if it has no pause."""
    pauses = [
        i
        for i in range(2, len(item.durations) - 2)
        if item.durations[i] >= PAUSE_FRAMES and item.token_ids[i] in PAUSING
    ]
    if item.num_frames <= longest or not pauses:
        return [item]
    ends = np.cumsum(item.durations)
    i = min(pauses, key=lambda i: abs(int(ends[i]) - item.num_frames / 2))
    outer = min(
        9, item.durations[i] // 3
    )  # at most 96 ms of silence for the end and the begin token
    held = item.durations[i] // 2 - outer  # what the pause's own token keeps
    begin, end = item.token_ids[0], item.token_ids[-1]
    left_durations = [*item.durations[:i], held, outer]
    right_durations = [outer, *item.durations[i + 1 :]]
    right_start = item.start_frame + int(ends[i]) - outer
    left = dataclasses.replace(
        item,
        num_frames=sum(left_durations),
        token_ids=[*item.token_ids[: i + 1], end],
        durations=left_durations,
    )
    right = dataclasses.replace(
        item,
        start_frame=right_start,
        num_frames=sum(right_durations),
        token_ids=[begin, *item.token_ids[i + 1 :]],
        durations=right_durations,
    )
    return [part for half in (left, right) for part in cut_at_pauses(half, longest)]


def _weights(
    items: Sequence[Item], shares: Mapping[str, float]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(items,) chances that sum to one: corpora by share, speakers by the root of their hours."""
    frames: dict[tuple[str, str], int] = defaultdict(int)
    for item in items:
        frames[item.corpus, item.speaker] += item.num_frames
    corpus_frames: dict[str, int] = defaultdict(int)
    corpus_roots: dict[str, float] = defaultdict(float)
    for (corpus, _), n in frames.items():
        corpus_frames[corpus] += n
        corpus_roots[corpus] += math.sqrt(n)
    named = {c: s for c, s in shares.items() if c in corpus_frames}
    rest = sum(n for c, n in corpus_frames.items() if c not in named)
    left = max(0.0, 1.0 - sum(named.values())) if rest else 0.0
    share = {c: named.get(c, left * n / max(rest, 1)) for c, n in corpus_frames.items()}
    # an item's frames count as often as it is drawn, so the shares below are shares of frames
    weights = np.array(
        [
            share[i.corpus]
            * math.sqrt(frames[i.corpus, i.speaker])
            / corpus_roots[i.corpus]
            / frames[i.corpus, i.speaker]
            for i in items
        ]
    )
    normalized: np.ndarray[Any, np.dtype[np.float64]] = weights / weights.sum()
    return normalized


def _buckets(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Ranges of the sorted items whose lengths differ by at most BUCKET_RATIO."""
    buckets, start = [], 0
    for i, item in enumerate(items):
        if item.num_frames > items[start].num_frames * BUCKET_RATIO and i - start >= 8:
            buckets.append((start, i))
            start = i
    buckets.append((start, len(items)))
    return buckets
