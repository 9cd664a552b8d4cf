"""Text as chunks of what is spoken in one go, with the pause after each."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LONGEST = 200
"""Characters in a chunk at most, about 12 seconds: the longest utterances of training."""

TYPICAL = 120
"""Short sentences of a paragraph are joined up to here; the first chunk is one sentence at most."""

OPENING = 60
"""A longer first chunk is cut after its first clause, to be heard early."""

SHORTEST = 20
"""A smaller piece joins its neighbour where they fit together: alone it sounds clipped."""

WORD_PAUSE = 0.05  # seconds, inside a sentence that had to be cut between words
CLAUSE_PAUSE = 0.15
SENTENCE_PAUSE = 0.3
LINE_PAUSE = 0.5
PARAGRAPH_PAUSE = 0.7

Pause = Literal["word", "clause", "sentence", "line", "paragraph"]
"""What a pause follows."""

PAUSE_SECONDS: dict[Pause, float] = {
    "word": WORD_PAUSE,
    "clause": CLAUSE_PAUSE,
    "sentence": SENTENCE_PAUSE,
    "line": LINE_PAUSE,
    "paragraph": PARAGRAPH_PAUSE,
}
"""From the shortest to the longest, at speed 1."""

_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Gen|Col|Capt|Lt|Sgt|Rev|Gov|Sen|Rep|vs|"
    r"e\.g|i\.e|approx|Inc|Ltd|Co|Corp|Jr|Sr|pp?|[A-Z]\.[A-Z])\.$"
)
_BEFORE_NUMBER = re.compile(r"(?:^|[\s(])(?:nos?|fig|vol|ch|sec|pp?)\.$", re.IGNORECASE)
_LONGEST_ABBREVIATION = 8
_CLAUSE_END = re.compile(r"[;:,…—][\"')\]]*(?=\s)|—(?=\S)")
_CONJUNCTION = re.compile(
    r"(?= (?:and|or|but|so|because|which|who|that|when|while|where|if|then|than|as|with|for|to)\s)"
)
_SPACE = re.compile(r"(?=\s)")
_BOUNDARIES: tuple[tuple[re.Pattern[str], Pause], ...] = (
    (_CLAUSE_END, "clause"),
    (_CONJUNCTION, "word"),
    (_SPACE, "word"),
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of text that is spoken in one go: `text` is source[start:end]."""

    text: str
    pause: Pause  # the silence after it; also after the last one, where a caller may drop it
    start: int
    end: int

    @property
    def pause_seconds(self) -> float:
        """The silence after it at speed 1."""
        return PAUSE_SECONDS[self.pause]


@dataclass(frozen=True, slots=True)
class _Span:
    """A place in the text and the pause that belongs after it."""

    start: int
    end: int
    pause: Pause

    @property
    def length(self) -> int:
        return self.end - self.start


def split(text: str, *, first: bool = True, whole: Sequence[tuple[int, int]] = ()) -> list[Chunk]:
    """The chunks of `text`, normalized or not, in order; the same text gives the same chunks.

    A line break ends a chunk, and so does a sentence unless it is short. Sentences above LONGEST
    are cut after punctuation, then before conjunctions, then between words, and inside a word only
    where it alone is longer.

    Args:
        text: what is to be said.
        first: whether the text begins here: its first sentence is not joined with others, and above
            OPENING its first clause is a chunk of its own.
        whole: spans, such as of a number in words, in which no sentence is cut if it can be cut
            elsewhere.
    """
    inside = bytearray(len(text) + 1)  # 1 where a cut would be inside a whole span
    for start, end in whole:
        inside[start + 1 : end] = b"\1" * (end - start - 1)
    spans: list[_Span] = []
    for line in _lines(text):
        sentences = [
            part for sentence in _sentences(text, line) for part in _cut(text, sentence, inside)
        ]
        starts = first and not spans
        joined = _joined(sentences, alone=starts)
        spans += (_opened(text, joined[0], inside) if starts else joined[:1]) + joined[1:]
    return [Chunk(text[s.start : s.end], s.pause, s.start, s.end) for s in spans]


def _trimmed(text: str, start: int, end: int, pause: Pause) -> _Span | None:
    """The span without white space at its ends; None when nothing but marks is left."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return _Span(start, end, pause) if start < end else None


def _lines(text: str) -> list[_Span]:
    """Lines with something to say; the pause after one is longer where a blank line follows."""
    spans: list[_Span] = []
    start = 0
    for line in text.splitlines(keepends=True):
        span = _trimmed(text, start, start + len(line), "line")
        start += len(line)
        if span and any(character.isalnum() for character in line):
            spans.append(span)
        elif not span and spans:
            spans[-1] = _Span(spans[-1].start, spans[-1].end, "paragraph")
    return spans


def _sentences(text: str, line: _Span) -> list[_Span]:
    """Sentences of a line; the last keeps the line's pause."""
    spans, start = [], line.start
    for end in sentence_ends(text, line.start, line.end):
        span = _trimmed(text, start, end, "sentence")
        spans += [span] if span else []
        start = end
    last = _trimmed(text, start, line.end, line.pause)
    return [*spans, last] if last else spans


def sentence_ends(text: str, start: int, end: int) -> list[int]:
    """Where sentences end in a line, text[start:end], behind their marks; not the line's own end."""
    return [
        found.end()
        for found in _SENTENCE_END.finditer(text, start, end)
        if _ends_sentence(text, start, found)
    ]


def _ends_sentence(text: str, line_start: int, found: re.Match[str]) -> bool:
    """Whether the mark is no abbreviation's nor a list number's, and no small letter goes on."""
    following = text[found.end() : found.end() + 3].lstrip(" \"'(")[:1]
    if found[0][0] in "!?":
        return not (following.islower() and found[0][-1] in "\"'")  # "Go!" he said.
    before = text[max(line_start, found.start() + 1 - _LONGEST_ABBREVIATION) : found.start() + 1]
    if found[0][0] == "." and (
        _ABBREVIATION.search(before)
        or (following.isdecimal() and _BEFORE_NUMBER.search(before))
        or text[line_start : min(found.start(), line_start + 4)].isdecimal()
    ):
        return False
    return not following.islower()


def _cut(text: str, sentence: _Span, inside: bytearray) -> list[_Span]:
    """The sentence in parts of at most LONGEST characters and about equal length."""
    parts, start = [], sentence.start
    while sentence.end - start > LONGEST:
        count = math.ceil((sentence.end - start) / LONGEST)
        middle = start + (sentence.end - start) // count
        place, pause = _best_place(text, start, middle, inside)
        part = _trimmed(text, start, place, pause)
        parts += [part] if part else []
        start = place
    last = _trimmed(text, start, sentence.end, sentence.pause)
    return [*parts, last] if last else parts


def _opened(text: str, span: _Span, inside: bytearray) -> list[_Span]:
    """The first chunk; its first clause and the rest if it is long."""
    clauses = _CLAUSE_END.finditer(text, span.start + SHORTEST, span.end - SHORTEST)
    for found in clauses if span.length > OPENING else ():
        if not inside[found.end()]:
            begin = _trimmed(text, span.start, found.end(), "clause")
            rest = _trimmed(text, found.end(), span.end, span.pause)
            return [part for part in (begin, rest) if part]
    return [span]


def _best_place(text: str, start: int, middle: int, inside: bytearray) -> tuple[int, Pause]:
    """Where to cut near `middle`, after the best kind of boundary there is, and the pause there."""
    low, high = (start + middle) // 2, start + LONGEST
    for whole in (True, False):
        for pattern, pause in _BOUNDARIES:
            ends = (found.end() for found in pattern.finditer(text, low, high))
            places = [place for place in ends if not (whole and inside[place])]
            if places:
                return min(places, key=lambda place: abs(place - middle)), pause
    return high, "word"


def _joined(spans: list[_Span], *, alone: bool) -> list[_Span]:
    """Short neighbours of one line as one; the first of a text stays short, to be heard early."""
    joined: list[_Span] = []
    for span in spans:
        limit = TYPICAL
        if joined and min(joined[-1].length, span.length) >= SHORTEST:
            limit = 0 if alone and len(joined) == 1 else TYPICAL
        if joined and span.end - joined[-1].start <= limit:
            joined[-1] = _Span(joined[-1].start, span.end, span.pause)
        else:
            joined.append(span)
    return joined
