"""The guided teacher's paths from noise to speech, solved once and kept on disk.

A folder holds `trajectories.jsonl` (one `Trajectory` a line) and `states.f16`: for every trajectory
its reference (Tr, M), then the states at t = 1/4, 1/2, 3/4 and 1, each (T, M), all normalized
log-mels. The noise at t = 0 is drawn again from its seed.
"""

import dataclasses
import json
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.errors import InputError, OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.duration import round_durations
from stepflow_tts.synthesis import minimum_frames
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.data import FRAME_STEP, TOKEN_STEP, Batch, Corpus, round_up

logger = logging.getLogger(__name__)

NUM_STATES = 4  # kept after the noise: t = 1/4, 1/2, 3/4, 1


@dataclass(frozen=True, slots=True)
class TrajectoryConfig:
    """How trajectories are made."""

    hours: float = 10.0
    num_steps: int = 12  # Euler steps of the teacher, a multiple of NUM_STATES
    cfg_strength: float = 0.7
    noise_scale: float = 1.0
    text_share: float = 0.5  # on texts without a recording, with predicted durations
    slowest: float = 0.8  # speeds drawn for those
    fastest: float = 1.25


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


def make_trajectories(
    teacher: AcousticModel,
    corpus: Corpus,
    texts: Sequence[str],
    folder: Path,
    config: TrajectoryConfig,
    *,
    symbols: tuple[str, ...],
    seed: int,
) -> None:
    """Solve the teacher from noise for `config.hours` of speech; goes on where it was stopped.

    Args:
        teacher: its averaged weights, in evaluation mode.
        corpus: recordings with durations, and references.
        texts: sentences without a recording; empty = recordings alone.
        folder: where the trajectories go; created if missing.
        config: how many and how.
        symbols: of the tokenizer.
        seed: of every draw.

    Raises:
        OptionError: the teacher's number of steps does not meet every state that is kept.
    """
    if config.num_steps <= 0 or config.num_steps % NUM_STATES:
        raise OptionError(
            f"trajectories.num_steps is {config.num_steps}; it must be a multiple of {NUM_STATES}, "
            "such as 12."
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "trajectories.jsonl"
    index.touch()
    os.truncate(index, index.read_bytes().rfind(b"\n") + 1)  # a line cut short by a kill goes
    done = read_trajectories(folder)
    frames = sum(t.num_frames for t in done)
    offset = done[-1].offset + _size(done[-1], teacher.n_mels) if done else 0
    device = next(teacher.parameters()).device
    wanted = config.hours * 3600 * corpus.mel.frame_rate
    step = len(done)  # a batch has at least one trajectory, so no step is drawn twice
    with (
        open(folder / "states.f16", "r+b" if done else "wb") as states,
        open(index, "a", encoding="utf-8") as lines,
    ):
        states.truncate(2 * offset)
        states.seek(2 * offset)
        while frames < wanted:
            rng = random.Random(f"{seed}/{step}")
            batch = corpus.batch(seed * 1_000_003 + step)
            if texts and rng.random() < config.text_share:
                batch = _with_texts(
                    teacher, batch, rng.choices(texts, k=len(batch.x1)), rng, symbols, config
                )
            batch = Batch(*(x.to(device) for x in batch))
            lengths = batch.durations.sum(1).tolist()
            seeds = [rng.getrandbits(48) for _ in lengths]
            solved = solve(teacher, batch, seeds, config).to("cpu", torch.float16)  # (5, B, T, M)
            reference = batch.reference.to("cpu", torch.float16)
            for i, length in enumerate(lengths):
                count = int(batch.token_mask[i].sum())
                t = Trajectory(
                    offset,
                    length,
                    reference.shape[1],
                    seeds[i],
                    batch.token_ids[i, :count].tolist(),
                    batch.durations[i, :count].tolist(),
                )
                states.write(reference[i].numpy().tobytes())
                states.write(solved[1:, i, :length].numpy().tobytes())
                states.flush()
                lines.write(json.dumps(dataclasses.asdict(t)) + "\n")
                lines.flush()
                offset, frames = offset + _size(t, teacher.n_mels), frames + length
            step += len(lengths)
            logger.info("%.2f h of trajectories", frames / corpus.mel.frame_rate / 3600)


@torch.inference_mode()
def solve(
    teacher: AcousticModel, batch: Batch, seeds: Sequence[int], config: TrajectoryConfig
) -> Tensor:
    """(5, B, T, M) states at 0, 1/4, 1/2, 3/4, 1 of the guided teacher."""
    lengths = batch.durations.sum(1)
    num_frames, device = int(lengths.max()), batch.durations.device
    noise = torch.zeros(len(seeds), num_frames, teacher.n_mels)
    for i, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
        noise[i, :length] = noise_of(seed, length, teacher.n_mels, config.noise_scale)
    frame_mask = torch.arange(num_frames, device=device) < lengths[:, None]  # (B, T)
    voice = teacher.encode_voice(batch.reference)
    encoding = teacher.encode_text(batch.token_ids, voice, batch.token_mask)
    conditions = teacher.frame_conditions(encoding, batch.durations)
    no_text = teacher.null_conditions(*conditions.shape[:2])
    no_voice = teacher.null_voice(len(seeds))

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=device)
        v_c = teacher.velocity(x, times, conditions, voice, frame_mask)
        v_0 = teacher.velocity(x, times, no_text, no_voice, frame_mask)
        return flow.guide(v_c, v_0, config.cfg_strength)

    states = flow.euler_states(velocity, noise.to(device), flow.time_grid(config.num_steps))
    stride = config.num_steps // NUM_STATES
    return torch.stack([x for k, x in enumerate(states) if k % stride == 0])


def _with_texts(
    teacher: AcousticModel,
    batch: Batch,
    texts: Sequence[str],
    rng: random.Random,
    symbols: tuple[str, ...],
    config: TrajectoryConfig,
) -> Batch:
    """The batch's references with other texts, durations predicted, at speeds drawn at random."""
    tokenizer, minimum = Tokenizer(symbols), minimum_frames(symbols)
    device = next(teacher.parameters()).device
    ids, durations = [], []
    for i, text in enumerate(texts):
        language = rng.choice(("en-us", "en-us", "en-gb"))
        token_ids = tokenizer.encode(phonemize(normalize(text), language))
        with torch.inference_mode():
            voice = teacher.encode_voice(batch.reference[i : i + 1].to(device))
            encoding = teacher.encode_text(torch.tensor([token_ids], device=device), voice)
            predicted = teacher.predict_durations(encoding, voice)[0].cpu()
        speed = rng.uniform(config.slowest, config.fastest)
        ids.append(torch.tensor(token_ids))
        durations.append(round_durations(predicted, speed=speed, minimum=minimum[token_ids]))
    token_ids_padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    counts = torch.tensor([len(row) for row in ids])
    return batch._replace(
        token_ids=token_ids_padded,
        token_mask=torch.arange(token_ids_padded.shape[1]) < counts[:, None],
        durations=torch.nn.utils.rnn.pad_sequence(durations, batch_first=True),
    )


def read_trajectories(folder: Path) -> list[Trajectory]:
    """Every whole trajectory of a folder.

    Raises:
        InputError: there is none.
    """
    path = folder / "trajectories.jsonl"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no trajectories. Make them with: stepflow-tts train distill"
        )
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Trajectory(**json.loads(line)) for line in lines if line.endswith("\n")]


class Trajectories:
    """The trajectories of a folder, and batches of them by (seed, step)."""

    def __init__(self, folder: Path, batch_seconds: float, noise_scale: float, seed: int) -> None:
        """Open the folder.

        Raises:
            InputError: it holds no trajectory.
        """
        self.items = sorted(read_trajectories(folder), key=lambda t: t.num_frames)
        if not self.items:
            raise InputError(
                f"{folder} holds no trajectories yet. Make some with: stepflow-tts train distill"
            )
        self.n_mels, self.seed, self.noise_scale = 100, seed, noise_scale
        self.states: np.ndarray[Any, np.dtype[np.float16]] = np.memmap(
            folder / "states.f16", np.float16, "r"
        )
        self.budget = batch_seconds * 93.75  # frames
        self.ends = np.cumsum([t.num_frames for t in self.items])

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
            rows = self.states[t.offset : t.offset + _size(t, self.n_mels)].astype(np.float32)
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


def _size(t: Trajectory, n_mels: int) -> int:
    """Float16s of a trajectory in states.f16."""
    return n_mels * (t.reference_frames + NUM_STATES * t.num_frames)
