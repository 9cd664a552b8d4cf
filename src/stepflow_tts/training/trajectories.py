"""The guided teacher's paths from noise to speech, solved once and kept on disk."""

import dataclasses
import json
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.config import to_dict
from stepflow_tts.errors import OptionError
from stepflow_tts.files import write_atomic
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.duration import round_durations
from stepflow_tts.models.shapes import FRAME_STEP, TOKEN_STEP, round_up
from stepflow_tts.synthesis import minimum_frames
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.data import Batch, Corpus
from stepflow_tts.training.trajectory_data import (
    INDEX_FILE,
    NUM_STATES,
    SETTINGS_FILE,
    STATES_FILE,
    Settings,
    Trajectory,
    noise_of,
    read_settings,
    read_trajectories,
    size_of,
)

logger = logging.getLogger(__name__)


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
    precision: Literal["float32", "bfloat16"] = "float32"  # of the teacher's matrix products


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
        OptionError: the teacher's number of steps does not meet every state that is kept, or the
            folder holds trajectories of other settings.
    """
    if config.num_steps <= 0 or config.num_steps % NUM_STATES:
        raise OptionError(
            f"trajectories.num_steps is {config.num_steps}; it must be a multiple of {NUM_STATES}, "
            "such as 12."
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX_FILE
    _settle(folder, Settings(config.noise_scale, config.cfg_strength, config.num_steps))
    index.touch()
    os.truncate(index, index.read_bytes().rfind(b"\n") + 1)  # a line cut short by a kill goes
    done = read_trajectories(folder)
    frames = sum(t.num_frames for t in done)
    offset = done[-1].offset + size_of(done[-1], teacher.n_mels) if done else 0
    device = next(teacher.parameters()).device
    wanted = config.hours * 3600 * corpus.mel.frame_rate
    step = len(done)  # a batch has at least one trajectory, so no step is drawn twice
    with (
        open(folder / STATES_FILE, "r+b" if done else "wb") as states,
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
                offset, frames = offset + size_of(t, teacher.n_mels), frames + length
            step += len(lengths)
            logger.info("%.2f h of trajectories", frames / corpus.mel.frame_rate / 3600)


@torch.inference_mode()
def solve(
    teacher: AcousticModel, batch: Batch, seeds: Sequence[int], config: TrajectoryConfig
) -> Tensor:
    """(5, B, T, M) states at 0, 1/4, 1/2, 3/4, 1 of the guided teacher."""
    lengths = batch.durations.sum(1)
    num_frames = round_up(int(lengths.max()), FRAME_STEP)  # few shapes, for kernels made per shape
    device = batch.durations.device
    half = config.precision == "bfloat16"
    noise = torch.zeros(len(seeds), num_frames, teacher.n_mels)
    for i, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
        noise[i, :length] = noise_of(seed, length, teacher.n_mels, config.noise_scale)
    frame_mask = torch.arange(num_frames, device=device) < lengths[:, None]  # (B, T)
    voice = teacher.encode_voice(batch.reference)
    encoding = teacher.encode_text(batch.token_ids, voice, batch.token_mask)
    conditions = teacher.frame_conditions(encoding, batch.durations, num_frames)
    no_text = teacher.null_conditions(*conditions.shape[:2])
    no_voice = teacher.null_voice(len(seeds))

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            v_c = teacher.velocity(x, times, conditions, voice, frame_mask)
            v_0 = teacher.velocity(x, times, no_text, no_voice, frame_mask)
        return flow.guide(v_c.float(), v_0.float(), config.cfg_strength)

    states = flow.euler_states(velocity, noise.to(device), flow.time_grid(config.num_steps))
    stride = config.num_steps // NUM_STATES
    kept = [x for k, x in enumerate(states) if k % stride == 0]
    return torch.stack(kept)[:, :, : int(lengths.max())]


def _settle(folder: Path, settings: Settings) -> None:
    """Note the settings of a folder without trajectories; refuse others than those of one with some."""
    index = folder / INDEX_FILE
    if not index.exists() or not index.read_bytes().count(b"\n"):
        write_atomic(folder / SETTINGS_FILE, json.dumps(to_dict(settings)).encode())
        return
    found = read_settings(folder)
    if found != settings:
        raise OptionError(
            f"{folder} holds trajectories made with {_shown(found)}, and the recipe says "
            f"{_shown(settings)}. Set [trajectories] as it was, or name another --folder."
        )


def _shown(settings: Settings) -> str:
    return ", ".join(f"{name} = {value}" for name, value in to_dict(settings).items())


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
    num_tokens = round_up(max(len(row) for row in ids), TOKEN_STEP)
    counts = torch.tensor([len(row) for row in ids])
    return batch._replace(
        token_ids=torch.stack([F.pad(row, (0, num_tokens - len(row))) for row in ids]),
        token_mask=torch.arange(num_tokens) < counts[:, None],
        durations=torch.stack([F.pad(row, (0, num_tokens - len(row))) for row in durations]),
    )
