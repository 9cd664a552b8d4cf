"""Text that arrives in parts, such as from a language model: what of it can be spoken already."""

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from stepflow_tts.errors import TextError
from stepflow_tts.text.split import SHORTEST, Chunk, sentence_ends

LOOKAHEAD = 40
"""Characters that have to follow a sentence before it is taken to be over: what comes after them
changes neither the words nor the end of the sentence."""

LONG_LINE = 600
"""Characters of an unfinished line from which on its settled beginning is forgotten: every look at
a line goes through all of it."""

# A line of marks alone belongs to the line before it.
_LINE_END = re.compile(r"\n(?=\s*(?:#{1,6} |[-*+•>] )?[\"'(\[*_]*[^\W_])")
_PAIRED = ("**", "__", "*", "_", "`", "~", '"')
_BRACKETS = (("(", ")"), ("[", "]"), ("<", ">"))

PlanT = TypeVar("PlanT")


class Planner(Generic[PlanT]):
    """The plan of a text that comes in parts, each item as soon as no later part can change it."""

    def __init__(
        self,
        chunks: Callable[[str, bool], Sequence[Chunk]],
        plan: Callable[[str, bool], Sequence[PlanT]],
    ) -> None:
        """Start with nothing.

        Args:
            chunks: the chunks of a text; the flag tells whether it starts the whole text.
            plan: what each chunk becomes, one item a chunk; the same flag.
        """
        self._chunks, self._plan = chunks, plan
        self._text, self._first, self._done = "", True, 0
        self._num_ends = 0  # of sentences that have been looked at

    def feed(self, part: str) -> list[PlanT]:
        """What the next part of the text settles; parts may be cut anywhere.

        Raises:
            TextError: it is no text, or cannot be spoken.
        """
        if not isinstance(part, str):
            raise TextError(f"A part of the text is a {type(part).__name__}; it must be a string.")
        self._text += part
        found: list[PlanT] = []
        lines = [line.end() for line in _LINE_END.finditer(self._text)]
        if lines and _speaks(self._text[: lines[-1]]):  # all before the last line break is over
            found += self._upto(len(self._chunks(self._text[: lines[-1]], self._first)))
            self._text, self._first, self._done = self._text[lines[-1] :], False, 0
            self._num_ends = 0
        ends = _ends(self._text)
        if len(ends) > self._num_ends:  # else there is no more to be settled, and looking is slow
            self._num_ends = len(ends)
            found += self._upto(_settled(self._text, ends, self._chunks, self._first))
            if len(self._text) > LONG_LINE:
                self._forget(ends)
        return found

    def finish(self) -> list[PlanT]:
        """The rest, when there are no more parts.

        Raises:
            TextError: there was nothing to speak in any of them.
        """
        if self._first or _speaks(self._text):
            return list(self._plan(self._text, self._first)[self._done :])
        return []

    def _forget(self, ends: Sequence[int]) -> None:
        """Drop sentences whose chunks are all planned, where the rest is planned alike without them."""
        now = _texts(self._chunks(self._text, self._first))
        planned = self._plan(self._text, self._first)
        fewest = 2 if self._first else 1  # the first chunk may be one of two that began as one
        for i, end in reversed(list(enumerate(ends))):
            rest = self._text[end:]
            if not rest.lstrip()[:1].isalpha():
                continue  # a number or mark means more where a line begins
            done = _texts(self._chunks(self._text[:end], self._first))
            if (
                fewest <= len(done) <= self._done
                and done == now[: len(done)]
                and self._plan(rest, False) == planned[len(done) :]
            ):
                self._text, self._first, self._done = rest, False, self._done - len(done)
                self._num_ends -= i + 1
                return

    def _upto(self, count: int) -> list[PlanT]:
        """The items of the present text that are new among the first `count`."""
        if count <= self._done:
            return []
        found = list(self._plan(self._text, self._first)[self._done : count])
        self._done = count
        return found


def _ends(text: str) -> list[int]:
    """Where sentences of an unfinished line are over."""
    return [
        end
        for end in sentence_ends(text, 0, max(0, len(text) - LOOKAHEAD))
        if _speaks(text[:end]) and _balanced(text[:end])
    ]


def _settled(
    text: str, ends: list[int], chunks: Callable[[str, bool], Sequence[Chunk]], first: bool
) -> int:
    """How many chunks of an unfinished line will stay what they are."""
    now, before = chunks(text, first), chunks(text[: ends[-1]], first)
    count = len(before) - 1
    alone = first and len(before) == 1 and len(before[0].text) >= SHORTEST
    apart = len(now) > 1 and now[0].pause == "sentence" and len(now[1].text) >= SHORTEST
    if alone and apart and len(ends) == 1:
        count = 1
    same = 0
    while same < min(count, len(now)) and now[same].text == before[same].text:
        same += 1
    return same


def _texts(chunks: Sequence[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


def _speaks(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _balanced(text: str) -> bool:
    """Whether no mark that later text could close stands open; such a mark changes what is said."""
    return all(text.count(mark) % 2 == 0 for mark in _PAIRED) and all(
        text.count(opening) == text.count(closing) for opening, closing in _BRACKETS
    )
