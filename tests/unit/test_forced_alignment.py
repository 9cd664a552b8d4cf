"""Tokens over frames: the best path against every path, and what is done with pauses."""

import itertools

import numpy as np
import pytest

from stepflow_tts.text.tokenizer import BOS, EOS
from stepflow_tts.training.aligner_model import PAUSE
from stepflow_tts.training.forced_alignment import (
    best_path,
    find_path,
    score_of,
    share_pauses,
    token_scores,
    with_commas,
)


def every_path(log_probs, optional, least_frames):
    """The best durations by trying all of them."""
    frames, tokens = log_probs.shape
    best, durations = -np.inf, None
    for cuts in itertools.combinations_with_replacement(range(frames + 1), tokens - 1):
        tried = np.diff((0, *cuts, frames))
        if any(d < least_frames and not o for d, o in zip(tried, optional, strict=True)):
            continue
        total = log_probs[np.arange(frames), np.repeat(np.arange(tokens), tried)].sum()
        if total > best:
            best, durations = total, tried.tolist()
    return durations


@pytest.mark.parametrize("least_frames", [1, 2])
def test_best_path_is_the_best_of_all_paths(least_frames):
    rng = np.random.default_rng(least_frames)
    for _ in range(150):
        frames, tokens = rng.integers(1, 8), rng.integers(1, 6)
        log_probs = rng.standard_normal((frames, tokens)).astype(np.float32)
        optional = (rng.random(tokens) < 0.5).tolist()
        path = best_path(log_probs, optional, least_frames=least_frames)
        expected = every_path(log_probs, optional, least_frames)
        assert (path.durations if path else None) == expected
        if path:
            steps = np.repeat(np.arange(tokens), expected)
            np.testing.assert_array_equal(path.log_probs, log_probs[np.arange(frames), steps])


def test_optional_token_without_evidence_gets_no_frame():
    likely, unlikely = -0.1, -9.0
    log_probs = np.full((6, 3), unlikely, np.float32)
    log_probs[:3, 0] = likely
    log_probs[3:, 2] = likely
    assert best_path(log_probs, [False, True, False]).durations == [3, 0, 3]
    assert best_path(log_probs, [False, False, False]).durations[1] == 1


def test_too_few_frames_give_no_path():
    assert best_path(np.zeros((2, 3), np.float32), [False] * 3) is None
    assert best_path(np.zeros((2, 3), np.float32), [False, True, False]).durations == [1, 0, 1]


def test_silence_counts_for_pausing_tokens_only():
    probabilities = np.array([[0.5, 0.1, 0.2, 0.2]])  # pause, end, space, phone
    posteriors = np.log(probabilities)
    assert PAUSE == 0
    scores = token_scores(posteriors, [0, 3, 2, 3, 1], [BOS, "a", " ", "a", EOS])
    np.testing.assert_allclose(np.exp(scores), [[0.5, 0.2, 0.7, 0.2, 0.5]])


def test_long_silence_at_a_lone_space_becomes_a_comma():
    symbols = [BOS, "a", " ", "b", " ", "c", ",", " ", "d", EOS]
    durations = [9, 5, 20, 5, 3, 5, 0, 30, 5, 9]
    symbols, durations = with_commas(symbols, durations)
    assert "".join(symbols[1:-1]) == "a, b c, d"
    assert share_pauses(symbols, durations) == [9, 5, 15, 5, 5, 3, 5, 25, 5, 5, 9]


@pytest.mark.parametrize(
    ("symbols", "durations", "expected"),
    [
        ([BOS, "a", " ", "b", EOS], [9, 5, 7, 5, 9], [9, 5, 7, 5, 9]),
        ([BOS, "a", ".", EOS], [9, 5, 0, 9], [9, 5, 4, 5]),
        ([BOS, "a", ",", " ", '"', "b", EOS], [9, 5, 1, 2, 1, 5, 9], [9, 5, 2, 2, 0, 5, 9]),
        ([BOS, '"', "a", EOS], [8, 0, 5, 9], [4, 4, 5, 9]),
        ([BOS, "a", ",", " ", "b", EOS], [9, 5, 0, 0, 5, 9], [9, 5, 0, 0, 5, 9]),
    ],
)
def test_pauses_go_to_punctuation(symbols, durations, expected):
    shared = share_pauses(symbols, durations)
    assert shared == expected
    assert sum(shared) == sum(durations)
    assert share_pauses(symbols, shared) == expected  # what is shared stays as it is


def test_score_of_an_alignment():
    fit = np.zeros(188)
    fit[100:147] = -2.0  # half a second that does not fit
    fit[10] = -47.0
    symbols, durations = [BOS, "a", "ː", " ", "b", ".", EOS], [20, 40, 10, 18, 44, 36, 20]
    score = score_of(fit, durations, symbols)
    assert score.mean == pytest.approx(-(94 + 47) / 188)
    assert score.window == pytest.approx(-2.0)
    assert score.phones_a_second == pytest.approx(2 / 94 * 93.75)


def test_phones_last_three_frames_where_there_is_room():
    symbols, ids = [BOS, "a", "b", EOS], [0, 2, 3, 1]
    posteriors = np.full((9, 4), -5.0, np.float32)
    posteriors[:, 2] = -0.1  # all of it sounds like "a"
    assert find_path(posteriors, ids, symbols).durations == [0, 6, 3, 0]
    assert find_path(posteriors[:4], ids, symbols).durations == [0, 3, 1, 0]
    assert find_path(posteriors[:1], ids, symbols) is None


def test_a_quote_after_a_space_is_a_pause_already():
    symbols = [BOS, "a", " ", '"', "b", EOS]
    assert with_commas(symbols, [5, 5, 30, 0, 5, 5])[0] == symbols
    symbols = [BOS, "a", '"', " ", "b", EOS]
    assert with_commas(symbols, [5, 5, 0, 30, 5, 5])[0] == symbols
