"""Which phonemes of a chunk belong to which word, and where its pauses are.

espeak-ng reads phrases: it joins words ("of the" is one group of phonemes) and weakens others, so
its groups are not the words. Each word is therefore phonemized alone as well, and the two strings
are laid side by side at the least edit cost.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stepflow_tts.text.phonemize import phonemize_words
from stepflow_tts.text.tokenizer import VOWELS, is_phone, is_silent

_SENTENCE_MARKS = frozenset(".!?…")
_CLAUSE_MARKS = frozenset(",;:—")
_STRESS = frozenset("ˈˌ")

# Costs of the edits, by kind of symbol: vowel, consonant, stress or length, silent. Weak forms change
# vowels ("for a" is fɔːɹ ˈeɪ word by word, fɚɹə together), and joined groups lack spaces.
_SKIP = np.array([4, 4, 1, 1], np.int32)
_REPLACE = np.array([[4, 8, 9, 20], [8, 4, 9, 20], [9, 9, 1, 20], [20, 20, 20, 4]], np.int32)

IntArray = np.ndarray[Any, np.dtype[np.int32]]


class Span(NamedTuple):
    """phonemes[start:end] of a chunk, and what they stand for."""

    text: str
    start: int
    end: int


def word_spans(words: Sequence[tuple[str, str]], phonemes: str, language: str) -> list[Span]:
    """The span of each word in order, without the marks and spaces around it; none overlap.

    Args:
        words: as written and as spoken; together they are what `phonemes` say. Where nothing is
            written, the phonemes belong to no word of the answer.
        phonemes: of a chunk.
        language: "en-us" or "en-gb".
    """
    if len(words) == 1:
        spans = [(0, len(phonemes))]
    else:
        spans = _divide(phonemes, phonemize_words([spoken for _, spoken in words], language))
    trimmed = (_trim(phonemes, *span) for span in spans)
    return [
        Span(written, *span) for (written, _), span in zip(words, trimmed, strict=True) if written
    ]


def phoneme_spans(phonemes: str) -> list[Span]:
    """The span of each sound, with its stress before it and its marks of length after it."""
    starts: list[int] = []
    ends: list[int] = []
    has_phone = True  # of the sound that is open
    for i, symbol in enumerate(phonemes):
        if is_silent(symbol):
            has_phone = True
            continue
        if has_phone and (is_phone(symbol) or symbol in _STRESS):
            starts.append(i)
            ends.append(i)
            has_phone = False
        has_phone = has_phone or is_phone(symbol)
        if ends:
            ends[-1] = i + 1
    return [Span(phonemes[a:b], a, b) for a, b in zip(starts, ends, strict=True)]


def pause_spans(phonemes: str) -> list[Span]:
    """From each mark that makes a pause to the next sound; the text is "clause" or "sentence"."""
    spans = []
    start = 0
    for i, symbol in enumerate(phonemes):
        if is_silent(symbol):
            continue
        marks = [k for k in range(start, i) if phonemes[k] in _SENTENCE_MARKS | _CLAUSE_MARKS]
        if start and marks:
            ends = _SENTENCE_MARKS.intersection(phonemes[start:i])
            spans.append(Span("sentence" if ends else "clause", marks[0], i))
        start = i + 1
    return spans


def _trim(phonemes: str, start: int, end: int) -> tuple[int, int]:
    """The span without the silent symbols at its ends."""
    while start < end and is_silent(phonemes[end - 1]):
        end -= 1
    while start < end and is_silent(phonemes[start]):
        start += 1
    return start, end


def _divide(phonemes: str, alone: Sequence[str]) -> list[tuple[int, int]]:
    """Spans of `phonemes`, one for each word as it is said alone, at the least edit cost."""
    expected = " ".join(alone)
    places = _lay(expected, phonemes)
    spans, start = [], 0
    for word in alone:
        end = start + len(word)
        # The space between two words is no part of either.
        spans.append((places[start - 1][1] if start else 0, places[end][0]))
        start = end + 1
    return spans


def _lay(expected: str, said: str) -> list[tuple[int, int]]:
    """For each symbol of `expected`, and its end, the span of `said` that it is laid on.

    Source: Needleman and Wunsch 1970, a row at a time.
    """
    skip_row = _SKIP[_kinds(expected)]  # (n,)
    skipped = np.concatenate(([0], _SKIP[_kinds(said)].cumsum()))  # (m + 1,)
    replace = _REPLACE[_kinds(expected)[:, None], _kinds(said)]  # (n, m)
    replace[_codes(expected)[:, None] == _codes(said)] = 0

    cost = np.empty((len(expected) + 1, len(said) + 1), np.int32)
    cost[0] = skipped
    for i in range(len(expected)):
        best = cost[i] + skip_row[i]
        best[1:] = np.minimum(best[1:], cost[i, :-1] + replace[i])
        cost[i + 1] = np.minimum.accumulate(best - skipped) + skipped

    i, j = len(expected), len(said)
    spans = [(j, j)] * (i + 1)
    while i > 0:
        if j > 0 and cost[i, j] == cost[i - 1, j - 1] + replace[i - 1, j - 1]:
            i, j = i - 1, j - 1
            spans[i] = (j, j + 1)
        elif cost[i, j] == cost[i - 1, j] + skip_row[i - 1]:
            i -= 1
            spans[i] = (j, j)
        else:
            j -= 1
    return spans


def _codes(text: str) -> IntArray:
    """The code points of `text`."""
    return np.array([ord(symbol) for symbol in text], np.int32)


def _kinds(text: str) -> IntArray:
    """0 for vowels, 1 for consonants, 2 for stress and length, 3 for what is silent."""
    kinds = [3 if is_silent(s) else 2 if not is_phone(s) else 0 if s in VOWELS else 1 for s in text]
    return np.array(kinds, np.int32)
