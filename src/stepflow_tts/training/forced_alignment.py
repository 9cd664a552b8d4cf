"""Tokens laid over the frames of an utterance, and how well they fit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from stepflow_tts.config import MelConfig
from stepflow_tts.text.tokenizer import BOS, EOS, Tokenizer
from stepflow_tts.training.aligner_model import (
    PAUSE,
    PUNCTUATION,
    Aligner,
    can_pause,
    is_optional,
    log_posteriors,
)

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Of a phone, 32 ms. Without it words that fit badly are squeezed into nothing: with 1, 2, 3 frames
# 85, 89, 91 % of the boundaries of degraded speech are within 30 ms.
LEAST_FRAMES = 3
WINDOW_FRAMES = 47  # half a second, over which the worst fit is sought
SPACE_FRAMES = 5  # of a pause that belong to the space, as in the synthetic corpus
COMMA_FRAMES = 16  # 170 ms of silence between words that have no punctuation make a comma


class TokenPath(NamedTuple):
    """Where each token lies."""

    durations: list[int]  # frames of each token; they sum to T
    log_probs: FloatArray  # (T,) of the chosen token in each frame


class Score(NamedTuple):
    """How well a text fits a recording.

    A frame's fit is the log-probability of its token less that of the likeliest class: 0 at best.
    """

    mean: float  # fit of all frames
    window: float  # fit of the worst half second
    phones_a_second: float  # pauses left out


class Alignment(NamedTuple):
    """Tokens laid over an utterance."""

    phonemes: str
    token_ids: list[int]
    durations: list[int]  # frames; they sum to T
    score: Score


def lay(
    log_mel: FloatArray, phonemes: str, model: Aligner, tokenizer: Tokenizer
) -> Alignment | None:
    """The best alignment of `phonemes` with an utterance (T, M), or None where it is too short.

    A long silence between words without punctuation becomes a comma, so that spaces stay short.
    """
    token_ids = tokenizer.encode(phonemes)
    posteriors = log_posteriors(model, torch.from_numpy(log_mel.astype(np.float32))).numpy()
    symbols = [tokenizer.symbols[i] for i in token_ids]
    path = find_path(posteriors, token_ids, symbols)
    if path is None:
        return None
    fit = path.log_probs - np.maximum(posteriors.max(axis=1), path.log_probs)  # (T,)
    score = score_of(fit, path.durations, symbols)
    symbols, durations = with_commas(symbols, path.durations)
    durations = share_pauses(symbols, durations)
    phonemes = "".join(symbols[1:-1])
    return Alignment(phonemes, tokenizer.encode(phonemes), durations, score)


def find_path(
    posteriors: FloatArray, token_ids: Sequence[int], symbols: Sequence[str]
) -> TokenPath | None:
    """The best path of the tokens through a classifier's log-probabilities (T, classes).

    Phones have LEAST_FRAMES, or one where the speech is too fast for that; None if even one is not
    to be had.
    """
    scores = token_scores(posteriors, token_ids, symbols)
    optional = [is_optional(s) for s in symbols]
    path = best_path(scores, optional, least_frames=LEAST_FRAMES)
    return path or best_path(scores, optional)


def token_scores(
    posteriors: FloatArray, token_ids: Sequence[int], symbols: Sequence[str]
) -> FloatArray:
    """(T, L) log-probability of each token in each frame; silence counts for those that can pause.

    Args:
        posteriors: (T, classes) log-probabilities of the classifier.
        token_ids: the class of each of L tokens.
        symbols: the symbol of each token.
    """
    columns = posteriors[:, list(token_ids)]  # (T, L)
    outer = np.array([s in (BOS, EOS) for s in symbols])
    inner = np.array([can_pause(s) for s in symbols]) & ~outer
    silence = posteriors[:, PAUSE, None]  # (T, 1)
    return np.where(outer, silence, np.where(inner, np.logaddexp(columns, silence), columns))


def with_commas(symbols: Sequence[str], durations: Sequence[int]) -> tuple[list[str], list[int]]:
    """Symbols and durations in which a long silence at a lone space has become a comma's."""
    new_symbols: list[str] = []
    new_durations: list[int] = []
    for i, (symbol, frames) in enumerate(zip(symbols, durations, strict=True)):
        alone = symbol == " " and not can_pause(symbols[i - 1]) and not can_pause(symbols[i + 1])
        if alone and frames >= COMMA_FRAMES:
            new_symbols.append(",")
            new_durations.append(0)  # `share_pauses` gives it its frames
        new_symbols.append(symbol)
        new_durations.append(frames)
    return new_symbols, new_durations


def share_pauses(symbols: Sequence[str], durations: Sequence[int]) -> list[int]:
    """The durations, each pause given to its punctuation but for what its space or end takes.

    Viterbi cannot tell where in a silence a comma ends and the space begins.
    """
    shared = list(durations)
    i = 0
    while i < len(symbols):
        stop = i
        while stop < len(symbols) and can_pause(symbols[stop]):
            stop += 1
        marks = [k for k in range(i, stop) if symbols[k] in PUNCTUATION]
        if marks:
            total = sum(durations[i:stop])
            outer = [k for k in (i, stop - 1) if symbols[k] in (BOS, EOS)]
            spaces = [k for k in range(i, stop) if symbols[k] == " "]
            shared[i:stop] = [0] * (stop - i)
            if outer:
                shared[outer[0]] = total - total // 2
            elif spaces:
                shared[spaces[-1]] = min(SPACE_FRAMES, total // 2)
            shared[marks[0]] = total - sum(shared[i:stop])
        i = max(stop, i + 1)
    return shared


def best_path(
    log_probs: FloatArray, optional: Sequence[bool], *, least_frames: int = 1
) -> TokenPath | None:
    """The path of highest summed log-probability, or None where there are too few frames.

    Tokens follow each other in order; an optional one may be skipped, any other has at least
    `least_frames`.

    Args:
        log_probs: (T, L), frame by token.
        optional: L flags, True for tokens that may have no frame.
        least_frames: of every token that is not optional.

    Source: Viterbi; one state for each frame that a token must have, the last of them may last.
    """
    repeats = [1 if skip else least_frames for skip in optional]
    token_of = np.repeat(np.arange(len(optional)), repeats)  # (S,)
    before = _predecessors(optional, repeats)  # (S, K), -1 where there is none
    closed = np.where(before < 0, -np.inf, 0.0).astype(np.float32)  # (S, K)
    before = before.clip(0)
    rows = log_probs[:, token_of]  # (T, S)
    states = np.arange(len(token_of))
    required = [i for i, token in enumerate(token_of.tolist()) if not optional[token]]
    first, last = (required[0], required[-1]) if required else (len(states) - 1, 0)

    best = np.where(states <= first, rows[0], -np.inf).astype(np.float32)  # (S,)
    choices = np.zeros(rows.shape, np.int8)
    for t in range(1, len(rows)):
        candidates = best[before] + closed  # (S, K)
        choices[t] = candidates.argmax(axis=1)
        best = candidates[states, choices[t]] + rows[t]
    state = last + int(np.argmax(best[last:]))
    if not np.isfinite(best[state]):
        return None
    path = np.empty(len(rows), np.int64)  # (T,) states
    for t in range(len(rows) - 1, -1, -1):
        path[t] = state
        state = before[state, choices[t, state]]
    tokens = token_of[path]  # (T,)
    durations = np.bincount(tokens, minlength=len(optional)).tolist()
    return TokenPath(durations, log_probs[np.arange(len(rows)), tokens])


def _predecessors(optional: Sequence[bool], repeats: Sequence[int]) -> IntArray:
    """(S, K) states that may come before each state, -1 where there are fewer than K."""
    ends = np.cumsum(repeats) - 1  # (L,) the last state of each token
    rows: list[list[int]] = []
    for token, count in enumerate(repeats):
        entries = []
        for earlier in range(token - 1, -1, -1):
            entries.append(int(ends[earlier]))
            if not optional[earlier]:
                break
        for _ in range(count):
            rows.append(entries)
            entries = [len(rows) - 1]
        rows[-1] = [len(rows) - 1, *rows[-1]]  # the last state of a token may last
    width = max(map(len, rows))
    return np.array([row + [-1] * (width - len(row)) for row in rows])


def score_of(fit: FloatArray, durations: Sequence[int], symbols: Sequence[str]) -> Score:
    """The score of an alignment, from the fit (T,) of each frame."""
    width = min(WINDOW_FRAMES, len(fit))
    total = np.cumsum(np.concatenate(([0.0], fit)))  # (T + 1,)
    window = float((total[width:] - total[:-width]).min()) / width
    spoken = sum(d for d, s in zip(durations, symbols, strict=True) if not can_pause(s))
    phones = sum(not is_optional(s) for s in symbols)
    rate = phones / max(spoken, 1) * MelConfig().frame_rate
    return Score(float(fit.mean()), window, rate)
