"""From a text to the chunks that are spoken one by one: token ids, words and the pause after each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stepflow_tts.errors import TextError
from stepflow_tts.text.lexicon import Lexicon
from stepflow_tts.text.locate import Span, pause_spans, phoneme_spans, word_spans
from stepflow_tts.text.normalize import Given, Piece, pieces
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.split import LONGEST, PAUSE_SECONDS, Chunk, Pause, split
from stepflow_tts.text.ssml import Section, read_ssml
from stepflow_tts.text.tokenizer import Tokenizer, is_phone

Markup = Literal["plain", "ssml"]

MAX_SILENCE_SECONDS = 3600
"""Of all pauses that a call asks for together."""

_LINE_END = re.compile(r"[.!?:;,…—][\"')\]]*$")  # where `normalize` adds no full stop
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*$")
_CLAUSE_END = re.compile(r"[,;:—][\"')\]]*$")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk of the plan."""

    token_ids: list[int]
    phonemes: str  # one symbol for each token between begin and end
    language: str
    words: tuple[tuple[str, str], ...]  # as written and as spoken; nothing written: said before
    pause_seconds: float  # after it, at speed 1
    exact_pause: bool = False  # as asked for: at any speed, the silence at its end counted in
    always_pause: bool = False  # also where it is the last part
    inner_pauses: tuple[tuple[int, int, float], ...] = ()  # seconds from a token to before another
    rate: float = 1.0  # times the speed of the call
    before_seconds: float = 0.0  # of silence

    @property
    def speaks(self) -> bool:
        """Whether it has any sound."""
        return any(is_phone(symbol) for symbol in self.phonemes)

    def word_spans(self) -> list[Span]:
        """Words as written, in order, each with its tokens."""
        return [_tokens(s) for s in word_spans(self.words, self.phonemes, self.language)]

    def phoneme_spans(self) -> list[Span]:
        """Sounds in order, each with its tokens."""
        return [_tokens(s) for s in phoneme_spans(self.phonemes)]


def plan(
    text: str,
    language: str,
    tokenizer: Tokenizer,
    *,
    markup: Markup = "plain",
    lexicon: Lexicon | None = None,
    pause_seconds: Mapping[Pause, float] | None = None,
    first: bool = True,
) -> list[Part]:
    """The parts of `text`, one for each of its `chunks`; they depend on these arguments alone.

    Args:
        text: plain text, or an SSML document.
        language: "en-us" or "en-gb".
        tokenizer: of the checkpoint.
        markup: "plain" interprets nothing.
        lexicon: how some words are said.
        pause_seconds: what is heard after a clause, sentence, line or paragraph, instead of what
            the model and PAUSE_SECONDS give.
        first: whether a whole text begins here; see `split`.

    Raises:
        TextError: nothing in the text can be spoken, it is no SSML that is known, or it asks for
            more than an hour of pauses.
    """
    asked = pause_seconds or {}
    parts: list[Part] = []
    for section in _sections(text, language, tokenizer, markup):
        found, chunks = _cut(section, language, lexicon, first and not parts)
        words = _words_of(found, chunks)
        for i, (chunk, said) in enumerate(zip(chunks, words, strict=True)):
            token_ids = tokenizer.encode(phonemize(chunk.text, language))
            phonemes = tokenizer.decode(token_ids)
            last = i == len(chunks) - 1
            pause = (section.pause or _pause_of(section.text)) if last else chunk.pause
            seconds = section.break_seconds if last else None
            if seconds is None:
                seconds = asked.get(pause)
            parts.append(
                Part(
                    token_ids,
                    phonemes,
                    language,
                    said,
                    PAUSE_SECONDS[pause] if seconds is None else seconds,
                    exact_pause=seconds is not None,
                    always_pause=section.break_seconds is not None,
                    inner_pauses=_inner_pauses(phonemes, asked),
                    rate=section.rate,
                    before_seconds=section.before_seconds if i == 0 else 0.0,
                )
            )
    _check_silence(parts)
    return parts


def chunks(
    text: str, language: str, *, lexicon: Lexicon | None = None, first: bool = True
) -> list[Chunk]:
    """The chunks of plain text that `plan` makes parts of.

    Raises:
        TextError: nothing in the text can be spoken.
    """
    return _cut(Section(text, pause="line"), language, lexicon, first)[1]


def _check_silence(parts: Sequence[Part]) -> None:
    """Refuse pauses that would fill the memory."""
    seconds = sum(part.before_seconds for part in parts)
    seconds += sum(part.pause_seconds for part in parts if part.exact_pause)
    seconds += sum(pause for part in parts for *_, pause in part.inner_pauses)
    if seconds > MAX_SILENCE_SECONDS:
        raise TextError(
            f"The breaks and pauses asked for are {seconds:.0f} s in all; {MAX_SILENCE_SECONDS} s "
            "are allowed in one call. Shorten them, or synthesize the text in parts."
        )


def _sections(text: str, language: str, tokenizer: Tokenizer, markup: Markup) -> list[Section]:
    """A plain text is one section."""
    if markup == "ssml":
        return read_ssml(text, language, tokenizer.symbols)
    return [Section(text, pause="line")]


def _cut(
    section: Section, language: str, lexicon: Lexicon | None, first: bool
) -> tuple[list[Piece], list[Chunk]]:
    """The pieces of a section and its chunks, which are slices of all that the pieces say."""
    given = section.given if lexicon is None else _with_lexicon(section, lexicon)
    found = pieces(section.text, language=language, given=given)
    if section.goes_on and not _LINE_END.search(section.text):
        last = found[-1]
        found[-1] = Piece(last.written, last.start, last.end, last.spoken.removesuffix("."))
    whole = [
        (start, end)
        for piece, (start, end) in zip(found, _places(found), strict=True)
        if end - start <= LONGEST and piece.spoken.rstrip() != piece.written
    ]
    said = "".join(piece.spoken for piece in found)
    return found, split(said, first=first, whole=whole)


def _with_lexicon(section: Section, lexicon: Lexicon) -> list[Given]:
    """What a section gives, and the lexicon's words around it."""
    taken = bytearray(len(section.text))
    for given in section.given:
        taken[given.start : given.end] = b"\1" * (given.end - given.start)
    free = [g for g in lexicon.find(section.text) if taken.find(1, g.start, g.end) < 0]
    return sorted([*section.given, *free], key=lambda given: given.start)


def _places(found: Sequence[Piece]) -> list[tuple[int, int]]:
    """Where each piece is in what all of them say, without the space after it."""
    places, start = [], 0
    for piece in found:
        places.append((start, start + len(piece.spoken.rstrip())))
        start += len(piece.spoken)
    return places


def _words_of(found: Sequence[Piece], cut: Sequence[Chunk]) -> list[tuple[tuple[str, str], ...]]:
    """As written and as spoken, the words of each chunk.

    Of a piece that several chunks share, each gets its share of what is written.
    """
    places = _places(found)
    words, i, told = [], 0, 0
    for chunk in cut:
        here: list[tuple[str, str]] = []
        while i < len(found) and places[i][0] < chunk.end:
            piece, (start, end) = found[i], places[i]
            until = len(piece.written)
            if end > chunk.end:
                until = round((chunk.end - start) / (end - start) * until)
            spoken = piece.spoken[max(0, chunk.start - start) : min(end, chunk.end) - start]
            here.append((_readable(piece.written[told:until]), spoken))
            told = until
            if end > chunk.end:
                break
            i, told = i + 1, 0
        words.append(tuple(here))
    return words


def _readable(written: str) -> str:
    """On one line, and without halves of surrogate pairs, which no file can hold."""
    return " ".join(_SURROGATE.sub("\ufffd", written).split())


def _pause_of(text: str) -> Pause:
    """What the last mark of a text asks for."""
    if _SENTENCE_END.search(text):
        return "sentence"
    return "clause" if _CLAUSE_END.search(text) else "word"


def _inner_pauses(
    phonemes: str, asked: Mapping[Pause, float]
) -> tuple[tuple[int, int, float], ...]:
    """The tokens of each pause inside a chunk that has its length from the caller."""
    kinds: dict[str, float] = {str(kind): seconds for kind, seconds in asked.items()}
    return tuple(
        (span.start + 1, span.end + 1, kinds[span.text])
        for span in pause_spans(phonemes)
        if span.text in kinds
    )


def _tokens(span: Span) -> Span:
    """A span of phonemes as one of tokens, of which the first is the begin."""
    return Span(span.text, span.start + 1, span.end + 1)
