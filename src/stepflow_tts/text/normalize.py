"""From written text to the words that are said, each piece with its place in the source."""

import bisect
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from stepflow_tts.errors import TextError
from stepflow_tts.text import (
    abbreviations,
    dates,
    layout,
    marks,
    money,
    quantities,
    units,
    web,
    words,
)
from stepflow_tts.text.characters import Cleaned, clean, clean_around
from stepflow_tts.text.rule import Rule
from stepflow_tts.text.speakable import check_speakable

_TOKEN = re.compile(r"\s+|\S+")
_SPACE_BEFORE_MARK = re.compile(r" (?=[,.;:!?…)])")
_LINE_ENDS = tuple(".!?:;,…—")
_SHORTEST_LIST = 3  # "A B C" and "no no no" are lists, "that that" is not


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the source, most often one word with its punctuation, and what is said for it."""

    written: str  # source[start:end]
    start: int
    end: int
    spoken: str  # with the space or line break that follows, so that joined pieces are the text


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be said for source[start:end], whatever is written there."""

    start: int
    end: int
    spoken: str  # words, or `ipa_in_text`


@dataclass(frozen=True, slots=True)
class _Segment:
    """A span of the cleaned text; `spoken` is None where it is said as written."""

    start: int
    end: int
    spoken: str | None


@dataclass(slots=True)
class _Open:
    """A piece that is being put together; `start` is negative until something is said."""

    start: int = -1
    end: int = -1
    spoken: str = ""
    replaced: bool = False  # whether the last thing said was a replacement

    def add(self, start: int, end: int, said: str, replaced: bool) -> None:
        """Append what is said for a span; words of a replacement do not touch other words."""
        if not said:
            return
        joins = self.spoken[-1:].isalnum() and said[0].isalnum() and (replaced or self.replaced)
        self.spoken += f" {said}" if joins else said
        self.replaced = replaced
        self.start = start if self.start < 0 else self.start
        self.end = end


def normalize(text: str, *, language: str = "en-us") -> str:
    """`text` as it is said: numbers and abbreviations in words, marks of prosody kept.

    Line breaks stay, a paragraph's as two, and every line ends in a punctuation mark. Letters that
    are spelled are joined with hyphens ("P-M").

    Args:
        text: anything a person would paste: prose, Markdown, lists, addresses.
        language: "en-us" or "en-gb"; decides whether 3/4/2024 is in March or April.

    Raises:
        TextError: nothing in the text can be spoken; see `check_speakable`.
    """
    return "".join(piece.spoken for piece in pieces(text, language=language))


def pieces(text: str, *, language: str = "en-us", given: Sequence[Given] = ()) -> list[Piece]:
    """The pieces of `normalize(text)` in order, with the spans of `text` that they stand for.

    Args:
        text: as in `normalize`.
        language: as in `normalize`.
        given: what is said for spans of `text`, in order; no rule touches them.

    Raises:
        TextError: nothing in the text can be spoken; see `check_speakable`.
    """
    check_speakable(_heard(text, given) if given else text)
    cleaned = clean_around(text, [(g.start, g.end) for g in given]) if given else clean(text)
    places = [bisect.bisect_left(cleaned.starts, g.start) for g in given]
    said = [_Segment(at, at + 2, g.spoken) for at, g in zip(places, given, strict=True)]
    found = _assemble(text, cleaned, _segments(cleaned.text, _rules(language), said))
    if not any(character.isalnum() for piece in found for character in piece.spoken):
        raise TextError(
            f"The text {text[:40]!r} holds only marks that are not said. "
            "Give at least one word in English."
        )
    return _listed(found)


def _heard(text: str, given: Sequence[Given]) -> str:
    """`text` with a word for each span that is given."""
    starts = [0, *(g.end for g in given)]
    ends = [*(g.start for g in given), len(text)]
    return " x ".join(text[start:end] for start, end in zip(starts, ends, strict=True))


@functools.lru_cache(maxsize=2)
def _rules(language: str) -> tuple[Rule, ...]:
    """All rules; the first that fits a place wins it."""
    return (
        *layout.RULES,
        *web.ADDRESS_RULES,
        *dates.rules(language),
        *web.CODE_RULES,
        *money.RULES,
        *units.RULES,
        *abbreviations.RULES,
        *quantities.RULES,
        *words.RULES,
        *marks.RULES,
    )


def _segments(text: str, rules: tuple[Rule, ...], given: list[_Segment]) -> list[_Segment]:
    """The text cut into what is given, what rules replace and what stays."""
    taken = bytearray(len(text))
    replaced = list(given)
    for segment in given:
        taken[segment.start : segment.end] = b"\1" * (segment.end - segment.start)
    for rule in rules:
        for found in rule.pattern.finditer(text):
            start, end = found.span(rule.group)
            if start >= end or taken.find(1, start, end) >= 0:
                continue
            spoken = rule.say(found)
            if spoken is not None:
                taken[start:end] = b"\1" * (end - start)
                replaced.append(_Segment(start, end, spoken))
    replaced.sort(key=lambda segment: segment.start)
    segments, place = [], 0
    for segment in replaced:
        segments += [_Segment(place, segment.start, None), segment]
        place = segment.end
    segments.append(_Segment(place, len(text), None))
    return segments


def _assemble(source: str, cleaned: Cleaned, segments: list[_Segment]) -> list[Piece]:
    """Pieces from segments: cut at the white space that stays, never inside a replacement."""
    done: list[Piece] = []
    current = _Open()
    for segment in segments:
        if segment.spoken is not None:
            current.add(segment.start, segment.end, segment.spoken, replaced=True)
            continue
        for token in _TOKEN.finditer(cleaned.text, segment.start, segment.end):
            if token[0].isspace():
                current = _close(source, cleaned, done, current, token[0])
            else:
                current.add(*token.span(), token[0], replaced=False)
    _close(source, cleaned, done, current, "\n")
    if done:
        done[-1] = _with_spoken(done[-1], done[-1].spoken.rstrip())
    return done


def _close(source: str, cleaned: Cleaned, done: list[Piece], current: _Open, space: str) -> _Open:
    """Finish the current piece before `space`; gives the next one, empty or with an opening mark."""
    said = _SPACE_BEFORE_MARK.sub("", " ".join(current.spoken.split()))
    separator = "\n\n" if space.count("\n") > 1 else "\n" if "\n" in space else " "
    if said and not any(character.isalnum() for character in said):
        if not done or (said[0] in "(\"'[" and separator == " "):
            return current
        previous = done[-1].spoken.rstrip()
        gap = " " if said[0] in "—([" else ""
        done[-1] = _with_spoken(done[-1], previous + gap + said + separator)
    elif said:
        start, end = cleaned.starts[current.start], cleaned.ends[current.end - 1]
        done.append(Piece(source[start:end], start, end, said + separator))
    elif done:
        kept = done[-1].spoken
        longest = max(separator, kept[len(kept.rstrip()) :], key=lambda s: (s.count("\n"), len(s)))
        done[-1] = _with_spoken(done[-1], kept.rstrip() + longest)
    if "\n" in separator and done:
        done[-1] = _with_spoken(done[-1], _ended(done[-1].spoken))
    return _Open()


def _ended(spoken: str) -> str:
    """`spoken` with a full stop when a line ends in no mark: what follows is heard as new."""
    body = spoken.rstrip()
    stop = "" if body.rstrip("\"')]").endswith(_LINE_ENDS) else "."
    return body + stop + spoken[len(body) :]


def _listed(found: list[Piece]) -> list[Piece]:
    """Commas between letters or digits said one by one, and in a word that is said over and over.

    So "4 4 7" is said as it is read aloud, and not as one word.
    """
    result, start = list(found), 0
    for end in range(1, len(found) + 1):
        if end < len(found) and _of_one_list(found[end - 1], found[end]):
            continue
        if end - start >= _SHORTEST_LIST:
            for i in range(start, end - 1):
                result[i] = _with_spoken(found[i], f"{found[i].spoken[:-1]}, ")
        start = end
    return result


def _of_one_list(piece: Piece, following: Piece) -> bool:
    """Whether two pieces without a mark between them are single characters, or the same word."""
    first, second = ("".join(filter(str.isalnum, p.written)).casefold() for p in (piece, following))
    plain = piece.written[-1].isalnum() and piece.spoken[-1] == " " and piece.spoken[-2].isalnum()
    return plain and (first == second or len(first) == len(second) == 1)


def _with_spoken(piece: Piece, spoken: str) -> Piece:
    return Piece(piece.written, piece.start, piece.end, spoken)
