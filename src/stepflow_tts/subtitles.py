"""Words with their times, and the subtitles made of them."""

import html
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LINE_CHARACTERS = 42  # as broadcasters have it, two lines at a time
CUE_SECONDS = 6.0
GAP_SECONDS = 0.6  # a longer silence ends a subtitle
SENTENCE_GAP_SECONDS = 0.1  # and so does this after a full stop, which "Dr." does not have

_SENTENCE_ENDS = (".", "!", "?", "…")


class Word(NamedTuple):
    """A word as it is written, with its punctuation, and when it is heard."""

    text: str
    start_seconds: float
    end_seconds: float


class Phoneme(NamedTuple):
    """A sound in IPA, with its stress and length, and when it is heard."""

    text: str
    start_seconds: float
    end_seconds: float


def to_srt(words: Sequence[Word]) -> str:
    """SubRip subtitles; empty for no words."""
    blocks = [
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{_lines(text)}\n"
        for number, (text, start, end) in enumerate(cues(words), start=1)
    ]
    return "\n".join(blocks)


def to_vtt(words: Sequence[Word]) -> str:
    """WebVTT subtitles; the header alone for no words."""
    blocks = ["WEBVTT\n"]
    for text, start, end in cues(words):
        shown = html.escape(_lines(text), quote=False)
        blocks.append(f"{_time(start, '.')} --> {_time(end, '.')}\n{shown}\n")
    return "\n".join(blocks)


def to_json(
    text: str, duration_seconds: float, words: Iterable[Word], phonemes: Iterable[Phoneme]
) -> str:
    """One JSON object: text, duration_seconds, and words and phonemes with their times."""
    data = {
        "text": text,
        "duration_seconds": duration_seconds,
        "words": [word._asdict() for word in words],
        "phonemes": [phoneme._asdict() for phoneme in phonemes],
    }
    return json.dumps(data, ensure_ascii=False)


def cues(words: Sequence[Word]) -> Iterator[Word]:
    """Words joined to subtitles: at most two lines and six seconds, ended by sentences and pauses."""
    cue: Word | None = None
    for word in words:
        if cue is not None and _goes_on(cue, word):
            cue = Word(f"{cue.text} {word.text}", cue.start_seconds, word.end_seconds)
            continue
        if cue is not None:
            yield cue
        cue = word
    if cue is not None:
        yield cue


def _goes_on(cue: Word, word: Word) -> bool:
    """Whether a subtitle has room for the next word."""
    gap = word.start_seconds - cue.end_seconds
    ended = cue.text.rstrip("\"'”’)]").endswith(_SENTENCE_ENDS)
    return (
        gap <= (SENTENCE_GAP_SECONDS if ended else GAP_SECONDS)
        and word.end_seconds - cue.start_seconds <= CUE_SECONDS
        and _lines(f"{cue.text} {word.text}").count("\n") <= 1
    )


def _lines(text: str) -> str:
    """The text of a subtitle on lines of equal length at most; a longer word is not broken."""
    return "\n".join(
        textwrap.wrap(text, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)
    )


def _time(seconds: float, point: str) -> str:
    """Such as 01:02:03,456."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
