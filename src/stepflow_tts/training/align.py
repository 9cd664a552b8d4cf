"""Durations for recordings: a frame classifier learnt from known durations, then Viterbi.

Utterances of a prepared folder that have durations train the classifier; those that have none get
phonemes, token ids and durations, or a reason why they are dropped. Nothing is done twice: the
classifier is kept in the folder, and utterances that have durations or a reason stay as they are.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError, TextError
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.aligner_data import Labelled, settle_silence
from stepflow_tts.training.aligner_model import Aligner, can_pause
from stepflow_tts.training.aligner_training import (
    ALIGNER_FILE,
    BoundaryCheck,
    check_boundaries,
    trained_aligner,
)
from stepflow_tts.training.forced_alignment import (
    Alignment,
    FloatArray,
    Score,
    lay,
    share_pauses,
)
from stepflow_tts.training.utterances import (
    Utterance,
    open_mels,
    read_utterances,
    write_utterances,
)

logger = logging.getLogger(__name__)

SCORES_FILE = "alignments.jsonl"
SAVE_EVERY = 200  # recordings
OUTER_FRAMES = 10  # of silence after the last phone, 107 ms


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """How the aligner is trained and what is kept."""

    num_updates: int = 600
    held_back: int = 60  # utterances with known durations that the check uses
    seed: int = 0
    least_within: float = 0.8  # share of boundaries within 30 ms, below which a warning is logged
    refuse_within: float = 0.6  # and below which nothing is aligned
    # Of true texts 3 in 100 lie below least_fit and 2 below least_window; of another recording's
    # all do; of texts with one word exchanged 30. With -2.3 the second would cost 1 in 10 recordings.
    least_fit: float = -1.2  # mean of all frames, see Score
    least_window: float = -2.7  # mean of the worst half second
    phones_a_second: tuple[float, ...] = (5.0, 25.0)  # pauses left out


@dataclass(frozen=True, slots=True)
class AlignReport:
    """What `align` did."""

    check: BoundaryCheck | None  # on clean synthetic speech; None where there is none
    degraded: BoundaryCheck | None  # the same speech with noise, reverberation, another colour
    num_aligned: int
    dropped: dict[str, int] = field(default_factory=dict)  # by reason


def align(
    folder: Path, config: AlignConfig | None = None, *, aligner: Path | None = None
) -> AlignReport:
    """Give every recording in a prepared folder its durations, or the reason why it has none.

    Args:
        folder: made by `prepare`, with utterances that have durations and others that have none.
        config: training and thresholds.
        aligner: a trained one, for folders without known durations; None = the folder's own.

    Raises:
        InputError: there is no aligner and there are no known durations to learn from, or the
            aligner places too few boundaries right.
        CheckpointFormatError: the aligner's file is damaged or knows other symbols.
    """
    config = config or AlignConfig()
    if aligner is not None:
        _adopt(aligner, folder)
    settle(folder)
    utterances = read_utterances(folder)
    mels, tokenizer = open_mels(folder, MelConfig()), Tokenizer()
    aligned_before = _aligned_ids(folder)
    known = [u for u in utterances if _is_known(u, aligned_before)]
    train_set, held_back = _split(known, config)
    if aligner is None and not (train_set and held_back):
        raise InputError(
            f"{folder} has {len(known)} utterances with known durations; the aligner learns from "
            "at least a few hundred. Prepare it together with synthetic speech that has durations, "
            "or name a trained one: --aligner checkpoints/aligner.safetensors"
        )
    checked = [_labelled(u, mels) for u in held_back]
    model = trained_aligner(
        folder,
        [_labelled(u, mels) for u in train_set],
        checked,
        tokenizer,
        num_updates=config.num_updates,
        seed=config.seed,
    )
    check = degraded = None
    if checked:
        check = check_boundaries(model, checked, tokenizer)
        degraded = check_boundaries(model, checked, tokenizer, degrade_seed=config.seed + 1)
        _judge(check, degraded, config)
    results = _align_all(folder, utterances, mels, model, config)
    known_ids = {u.id for u in known}
    kept = sum(1 for r in results if r.durations and r.id not in known_ids and not r.dropped)
    dropped = dict(Counter(r.dropped for r in results if r.dropped))
    logger.info("aligned %d recordings; dropped %s", kept, dropped or "none")
    return AlignReport(check, degraded, kept, dropped)


def _adopt(aligner: Path, folder: Path) -> None:
    """Copy an aligner into the prepared folder that is to use it."""
    if not aligner.is_file():
        raise InputError(f"There is no aligner {aligner}. Name a file aligner.safetensors.")
    read_utterances(folder)  # a folder that was not prepared is told before anything is written
    shutil.copyfile(aligner, folder / ALIGNER_FILE)


def settle(folder: Path) -> int:
    """Settle the silences of known durations; gives back how many utterances that changed.

    What a recording's alignment would put into the pause is taken from the last phone before it,
    and all but 107 ms of the silence at the end is cut off. `align` does this first; prepared
    folders without recordings need it too, so that all durations mean the same.
    """
    utterances = read_utterances(folder)
    mels, tokenizer = open_mels(folder, MelConfig()), Tokenizer()
    aligned_before = _aligned_ids(folder)
    settled = [
        _settled(u, mels, tokenizer) if _is_known(u, aligned_before) else u for u in utterances
    ]
    changed = sum(new != old for new, old in zip(settled, utterances, strict=True))
    if changed:
        write_utterances(folder, settled)
    return changed


def spoken_form(text: str) -> str:
    """The text as it is to be phonemized.

    All capitals would be spelled out letter by letter. The full stop that `normalize` puts at an end
    without one goes: transcripts without punctuation are often cut in the middle of a sentence.
    """
    spoken = normalize(text.lower() if text.isupper() else text)
    return spoken.rstrip(".") if text.rstrip()[-1:].isalnum() else spoken


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


def _is_known(u: Utterance, aligned_before: set[str]) -> bool:
    """Whether the utterance's durations are known, and not an aligner's."""
    return u.durations is not None and u.dropped is None and u.id not in aligned_before


def _labelled(u: Utterance, mels: FloatArray) -> Labelled:
    """The utterance with its mel."""
    assert u.token_ids is not None
    assert u.durations is not None
    return Labelled(_mel(u, mels), u.token_ids, u.durations)


def _mel(u: Utterance, mels: FloatArray) -> FloatArray:
    """(T, M) of the utterance."""
    return mels[u.start_frame : u.start_frame + u.num_frames]


def _align_all(
    folder: Path,
    utterances: Sequence[Utterance],
    mels: FloatArray,
    model: Aligner,
    config: AlignConfig,
) -> list[Utterance]:
    """The utterances, aligned or dropped; written to the folder now and then, so little is lost."""
    tokenizer = Tokenizer()
    results = list(utterances)
    scores: list[str] = []
    waiting = [i for i, u in enumerate(utterances) if u.durations is None and u.dropped is None]
    for count, i in enumerate(waiting, 1):
        u = utterances[i]
        results[i], alignment = _aligned(u, _mel(u, mels), model, tokenizer, config)
        if alignment is not None:
            scores.append(json.dumps({"id": u.id} | alignment.score._asdict()) + "\n")
        if count % SAVE_EVERY == 0 or count == len(waiting):
            with open(folder / SCORES_FILE, "a", encoding="utf-8") as lines:
                lines.writelines(scores)
            write_utterances(folder, results)
            scores.clear()
            logger.info("%d of %d recordings", count, len(waiting))
    return results


def _aligned(
    u: Utterance, log_mel: FloatArray, model: Aligner, tokenizer: Tokenizer, config: AlignConfig
) -> tuple[Utterance, Alignment | None]:
    """The recording with its durations, or with the reason why it is dropped."""
    try:
        phonemes = phonemize(spoken_form(u.text), u.language)
    except TextError:
        return replace(u, dropped="text cannot be spoken"), None
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
    if score.mean < config.least_fit:
        return "text does not fit the sound"
    if score.window < config.least_window:
        return "a part of the text does not fit the sound"
    if not low <= score.phones_a_second <= high:
        return "speech rate out of range"
    return None


def _settled(u: Utterance, mels: FloatArray, tokenizer: Tokenizer) -> Utterance:
    """The utterance with silence in its pauses, and at most OUTER_FRAMES after its last phone."""
    assert u.token_ids is not None
    assert u.durations is not None
    symbols = [tokenizer.symbols[i] for i in u.token_ids]
    durations = settle_silence(_mel(u, mels), symbols, u.durations)
    first = len(durations)
    while first > 0 and can_pause(symbols[first - 1]):
        first -= 1
    excess = sum(durations[first:]) - OUTER_FRAMES
    for i in range(len(durations) - 1, first - 1, -1):
        cut = max(0, min(excess, durations[i]))
        durations[i] -= cut
        excess -= cut
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
