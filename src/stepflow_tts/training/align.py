"""Durations for recordings: a frame classifier learnt from known durations, then Viterbi.

Utterances of a prepared folder that have durations train the classifier; those that have none get
phonemes, token ids and durations, or a reason why they are dropped. Nothing is done twice: the
classifier is kept in the folder, and utterances that have durations or a reason stay as they are.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.aligner_data import Labelled, settle_silence
from stepflow_tts.training.aligner_model import Aligner, can_pause, is_optional
from stepflow_tts.training.aligner_training import BoundaryCheck, check_boundaries, trained_aligner
from stepflow_tts.training.forced_alignment import (
    Alignment,
    FloatArray,
    Score,
    lay,
    share_pauses,
)
from stepflow_tts.training.prepare import (
    Utterance,
    open_mels,
    read_utterances,
    write_utterances,
)

logger = logging.getLogger(__name__)

SCORES_FILE = "alignments.jsonl"
OUTER_FRAMES = 10  # of silence after the last phone, 107 ms


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the aligner is trained and what is kept."""

    num_updates: int = 600
    held_back: int = 60  # utterances with known durations that the check uses
    seed: int = 0
    least_within: float = 0.8  # share of boundaries within 30 ms, below which a warning is logged
    refuse_within: float = 0.6  # and below which nothing is aligned
    least_score: float = -2.0  # mean log-probability of a frame
    least_window: float = -4.0  # the same in the worst second
    phones_a_second: tuple[float, ...] = (5.0, 25.0)  # pauses left out


@dataclass(frozen=True, slots=True)
class AlignReport:
    """What `align` did."""

    check: BoundaryCheck  # on clean synthetic speech
    degraded: BoundaryCheck  # the same speech with noise, reverberation, another colour
    num_aligned: int
    dropped: dict[str, int] = field(default_factory=dict)  # by reason


def align(folder: Path, config: AlignConfig | None = None) -> AlignReport:
    """Give every recording in a prepared folder its durations, or the reason why it has none.

    Args:
        folder: made by `prepare`, with utterances that have durations and others that have none.
        config: training and thresholds.

    Raises:
        InputError: there are no known durations to learn from, or the aligner that came of them
            places too few boundaries right.
    """
    config = config or AlignConfig()
    utterances = read_utterances(folder)
    mels, tokenizer = open_mels(folder, MelConfig()), Tokenizer()
    aligned_before = _aligned_ids(folder)
    known = [u for u in utterances if u.durations and u.id not in aligned_before and not u.dropped]
    train_set, held_back = _split(known, config)
    if not train_set or not held_back:
        raise InputError(
            f"{folder} has {len(known)} utterances with known durations; the aligner learns from "
            "at least a few hundred. Prepare it together with synthetic speech that has durations."
        )
    labelled = {u.id: _labelled(u, mels, tokenizer) for u in known}
    checked = [labelled[u.id] for u in held_back]
    model = trained_aligner(
        folder,
        [labelled[u.id] for u in train_set],
        checked,
        tokenizer,
        num_updates=config.num_updates,
        seed=config.seed,
    )
    check = check_boundaries(model, checked, tokenizer)
    degraded = check_boundaries(model, checked, tokenizer, degrade_seed=config.seed + 1)
    _judge(check, degraded, config)
    results: list[Utterance] = []
    scores: list[str] = []
    dropped: Counter[str] = Counter()
    for u in utterances:
        result = u
        if u.dropped is None and u.durations is None:
            mel = np.asarray(mels[u.start_frame : u.start_frame + u.num_frames])
            result, alignment = _aligned(u, mel, model, tokenizer, config)
            if alignment is not None:
                scores.append(json.dumps({"id": u.id} | alignment.score._asdict()) + "\n")
        elif u.id in labelled:
            result = _trimmed(replace(u, durations=labelled[u.id].durations), tokenizer)
        if result.dropped:
            dropped[result.dropped] += 1
        results.append(result)
    with open(folder / SCORES_FILE, "a", encoding="utf-8") as lines:
        lines.writelines(scores)
    write_utterances(folder, results)
    kept = sum(1 for r in results if r.durations and r.id not in labelled and not r.dropped)
    logger.info("aligned %d recordings; dropped %s", kept, dict(dropped) or "none")
    return AlignReport(check, degraded, kept, dict(dropped))


def spoken_form(text: str) -> str:
    """The text as it is to be phonemized; all capitals would be spelled out letter by letter."""
    return normalize(text.lower() if text.isupper() else text)


def _judge(check: BoundaryCheck, degraded: BoundaryCheck, config: AlignConfig) -> None:
    """Log the check; refuse an aligner that does not know where phones are."""
    for name, result in (("clean", check), ("degraded", degraded)):
        logger.info(
            "boundaries of %s synthetic speech kept back: %.1f %% of %d within 30 ms, "
            "median %.0f ms, nine in ten within %.0f ms",
            name,
            100 * result.within_30_ms,
            result.num_boundaries,
            result.median_ms,
            result.p90_ms,
        )
    if check.within_30_ms < config.refuse_within:
        raise InputError(
            f"The aligner places {check.within_30_ms:.0%} of the boundaries of synthetic speech "
            f"within 30 ms; {config.refuse_within:.0%} is the least. Give it more speech with "
            "durations or more updates, and check that those durations fit their sound."
        )
    if check.within_30_ms < config.least_within:
        logger.warning("fewer boundaries than %.0f %% are within 30 ms", 100 * config.least_within)


def _split(
    known: Sequence[Utterance], config: AlignConfig
) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to train on, and others to check with: of held-out speakers where there are any."""
    unseen = [u for u in known if u.split == "held_out"]
    every = max(2, len(known) // config.held_back)
    held_back = (unseen or [u for i, u in enumerate(known) if i % every == 0])[: config.held_back]
    ids = {u.id for u in held_back}
    return [u for u in known if u.split == "train" and u.id not in ids], held_back


def _labelled(u: Utterance, mels: FloatArray, tokenizer: Tokenizer) -> Labelled:
    """The utterance with its silences settled."""
    assert u.token_ids is not None
    assert u.durations is not None
    mel = mels[u.start_frame : u.start_frame + u.num_frames]
    symbols = [tokenizer.symbols[i] for i in u.token_ids]
    return Labelled(mel, u.token_ids, settle_silence(mel, symbols, u.durations))


def _aligned(
    u: Utterance, log_mel: FloatArray, model: Aligner, tokenizer: Tokenizer, config: AlignConfig
) -> tuple[Utterance, Alignment | None]:
    """The recording with its durations, or with the reason why it is dropped."""
    phonemes = phonemize(spoken_form(u.text), u.language)
    if all(is_optional(symbol) for symbol in phonemes):
        return replace(u, dropped="no text"), None
    alignment = lay(log_mel, phonemes, model, tokenizer)
    if alignment is None:
        return replace(u, dropped="too short for its text"), None
    reason = reject(alignment.score, config)
    if reason:
        return replace(u, dropped=reason), alignment
    return (
        replace(
            u,
            phonemes=alignment.phonemes,
            token_ids=alignment.token_ids,
            durations=alignment.durations,
        ),
        alignment,
    )


def reject(score: Score, config: AlignConfig) -> str | None:
    """Why an alignment is not good enough, or None where it is."""
    low, high = config.phones_a_second
    if score.mean < config.least_score:
        return "text does not fit the sound"
    if score.window < config.least_window:
        return "a part of the text does not fit the sound"
    if not low <= score.phones_a_second <= high:
        return "speech rate out of range"
    return None


def _trimmed(u: Utterance, tokenizer: Tokenizer) -> Utterance:
    """The utterance with at most OUTER_FRAMES of silence after its last phone, as recordings have."""
    assert u.token_ids is not None
    assert u.durations is not None
    durations = list(u.durations)
    first = len(durations)
    while first > 0 and can_pause(tokenizer.symbols[u.token_ids[first - 1]]):
        first -= 1
    excess = sum(durations[first:]) - OUTER_FRAMES
    for i in range(len(durations) - 1, first - 1, -1):
        cut = max(0, min(excess, durations[i]))
        durations[i] -= cut
        excess -= cut
    symbols = [tokenizer.symbols[i] for i in u.token_ids]
    durations[first:] = share_pauses(symbols[first:], durations[first:])
    num_frames = sum(durations)
    if num_frames == u.num_frames:
        return replace(u, durations=durations)
    num_samples = (num_frames - 1) * MelConfig().hop_length
    return replace(u, durations=durations, num_frames=num_frames, num_samples=num_samples)


def _aligned_ids(folder: Path) -> set[str]:
    """Utterances whose durations came from an aligner, and so do not count as known."""
    path = folder / SCORES_FILE
    if not path.exists():
        return set()
    return {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()}
