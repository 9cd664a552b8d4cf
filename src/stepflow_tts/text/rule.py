"""What a normalization rule is."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Says something else for one group of a pattern; `say` returns None to leave it alone.

    Every pattern runs over the whole text in linear time: it starts with something that a long
    run of equal characters matches once only, and its repetitions are bounded or unambiguous.
    """

    pattern: re.Pattern[str]
    say: Callable[[re.Match[str]], str | None]
    group: int = 0


def rule(pattern: str, say: Callable[[re.Match[str]], str | None], group: int = 0) -> Rule:
    """A rule whose pattern minds case and where ^ and $ are the ends of lines."""
    return Rule(re.compile(pattern, re.MULTILINE), say, group)


def any_of(symbols: Iterable[str]) -> str:
    """A pattern's alternatives, the longest first."""
    return "|".join(sorted(map(re.escape, symbols), key=len, reverse=True))


def dropped(_: re.Match[str]) -> str:
    """Nothing is said."""
    return ""


_STARTERS = (
    "The A An It He She They We You I In On At But And So This That These Those There If When "
    "What Who Why How Where While As After Before For To From My His Her Its Our Their Your No Not "
    "Yes Then Now Here Please One Some Many All Most However Later Today Next Is Are Was Were Do Did"
)
_SENTENCE_END = re.compile(
    rf"[\"')\]*_]*(?:[ ]?(?:\n|\Z)|\s[\"'(*_]*(?:{'|'.join(_STARTERS.split())})\b(?!\.))"
)


def full_stop_after(found: re.Match[str], group: int = 0) -> str:
    """Such as "." when the period that ends the group also ends a sentence, else ""."""
    end = found.end(group)
    if found.string[end - 1] != ".":
        return ""
    return "." if _SENTENCE_END.match(found.string, end) else ""
