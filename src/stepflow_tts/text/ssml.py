"""SSML, a small part of it: what to say, how fast, and where to pause.

    <speak>                     the root; version, xmlns and xml:lang are allowed
    <p>, <s>                    a paragraph, a sentence
    <break time="500ms"/>       silence, at most 10 s; or strength="none" to "x-strong"
    <sub alias="...">           other words for what is written
    <phoneme ph="...">          IPA for what is written; alphabet="ipa"
    <prosody rate="80%">        tempo: 50% to 200%, or "x-slow" to "x-fast"

Anything else is an error, not ignored. White space, line breaks too, is one space. A break and a
change of rate divide a sentence into chunks that are spoken one by one.

Source: Speech Synthesis Markup Language 1.1, W3C 2010.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

from stepflow_tts.errors import InputError, TextError
from stepflow_tts.text.lexicon import ipa_of, respelled
from stepflow_tts.text.normalize import Given
from stepflow_tts.text.phonemize import ipa_in_text, resolve_language
from stepflow_tts.text.split import PAUSE_SECONDS, Pause

MAX_BREAK_SECONDS = 10.0
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.5}
_STRENGTHS: dict[str, float] = {
    "none": 0.0,
    "x-weak": PAUSE_SECONDS["word"],
    "weak": PAUSE_SECONDS["clause"],
    "medium": PAUSE_SECONDS["sentence"],
    "strong": PAUSE_SECONDS["line"],
    "x-strong": PAUSE_SECONDS["paragraph"],
}
_ATTRIBUTES = {
    "speak": {"version", "xmlns", "xml:lang"},
    "p": set[str](),
    "s": set[str](),
    "break": {"time", "strength"},
    "sub": {"alias"},
    "phoneme": {"alphabet", "ph"},
    "prosody": {"rate"},
}
_INSIDE = {  # the elements that a tag may stand in
    "speak": {""},
    "p": {"speak", "prosody"},
    "s": {"speak", "p", "prosody"},
    **{tag: {"speak", "p", "s", "prosody"} for tag in ("break", "sub", "phoneme", "prosody")},
}
_TIME = re.compile(r"\+?(\d+(?:\.\d+)?|\.\d+)(ms|s)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_SPACE = re.compile(r"\s+")
_MARKS = re.compile(r"[.,;:!?…)\]\"'”’]+(?:\s+|$)")
_KINDS = list(PAUSE_SECONDS)


@dataclass(slots=True)
class Section:
    """A stretch of text that is said at one rate, with the pause after it."""

    text: str
    given: list[Given] = field(default_factory=list)
    rate: float = 1.0  # 2.0 = twice as fast
    pause: Pause | None = None  # None is what its last mark asks for
    break_seconds: float | None = None  # instead of `pause`
    before_seconds: float = 0.0
    goes_on: bool = False  # whether it is no end of a sentence, where no mark says so


class _Open(NamedTuple):
    """An element that is not closed yet."""

    tag: str
    line: int
    attributes: dict[str, str]
    start: int  # of its text


def read_ssml(markup: str, language: str, symbols: tuple[str, ...]) -> list[Section]:
    """The sections of an SSML document, in order; at least one.

    Args:
        markup: the whole document, with <speak> as its root.
        language: "en-us" or "en-gb", that it is spoken in.
        symbols: that the checkpoint knows, for given IPA.

    Raises:
        TextError: not well-formed, outside the subset above, or without words; with the line.
    """
    if not isinstance(markup, str):
        raise TextError(f"The SSML must be a string, not {type(markup).__name__}.")
    reader = _Reader(language, symbols)
    try:
        reader.parser.Parse(markup.encode("utf-8"), True)
    except expat.ExpatError as error:
        unclosed = "".join(f"; <{o.tag}> of line {o.line} is open" for o in reader.open[-1:])
        raise TextError(
            f"SSML, line {error.lineno}: {expat.ErrorString(error.code)}{unclosed}. "
            'Close every tag, and write & and < as &amp; and &lt;; or pass markup="plain".'
        ) from error
    except UnicodeEncodeError as error:
        raise TextError(
            f"The SSML holds half a surrogate pair at position {error.start}, which is no character."
        ) from error
    if not reader.sections:
        raise TextError("The SSML holds no words. Give at least one word in English.")
    return reader.sections


class _Reader:
    """Collects sections while expat reads."""

    def __init__(self, language: str, symbols: tuple[str, ...]) -> None:
        self.language = language
        self.symbols = symbols
        self.sections: list[Section] = []
        self.open: list[_Open] = []
        self.rates = [1.0]
        self.before_seconds = 0.0
        self._parts: list[str] = []
        self._length = 0
        self._given: list[Given] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.ProcessingInstructionHandler = self._refuse_instruction

    def _error(self, message: str) -> TextError:
        return TextError(f"SSML, line {self.parser.CurrentLineNumber}: {message}")

    def _refuse_doctype(self, name: str, *_: object) -> None:
        # Without one no entity can be declared either.
        raise self._error(f"<!DOCTYPE {name}> is not read. Leave it out.")

    def _refuse_instruction(self, target: str, _: str) -> None:
        raise self._error(f"<?{target}?> is not read. Leave it out.")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag not in _ATTRIBUTES:
            raise self._error(f"<{tag}> is not supported. Known: {', '.join(_ATTRIBUTES)}.")
        parent = self.open[-1].tag if self.open else ""
        if parent not in _INSIDE[tag]:
            place = f"inside <{parent}>" if parent else "as the root; that is <speak>"
            raise self._error(f"<{tag}> cannot stand {place}.")
        for name in attributes:
            if name not in _ATTRIBUTES[tag]:
                known = ", ".join(sorted(_ATTRIBUTES[tag])) or "none"
                raise self._error(f"<{tag}> has no attribute {name!r} here. Known: {known}.")
        if tag == "speak":
            self._check_language(attributes.get("xml:lang"))
        elif tag in ("p", "s"):
            self._close_section("paragraph" if tag == "p" else "sentence")
        elif tag == "prosody":
            self.rates.append(self.rates[-1] * self._rate(attributes.get("rate")))
            self._close_section(None, rate=self.rates[-2])
        elif tag == "break":
            self._break(attributes)
        self.open.append(_Open(tag, self.parser.CurrentLineNumber, attributes, self._length))

    def _end(self, tag: str) -> None:
        opened = self.open.pop()
        if tag in ("p", "s"):
            self._close_section("paragraph" if tag == "p" else "sentence")
        elif tag == "prosody":
            self._close_section(None)
            self.rates.pop()
        elif tag in ("sub", "phoneme"):
            self._give(opened)
        elif tag == "speak":
            self._close_section("line")

    def _characters(self, data: str) -> None:
        data = _SPACE.sub(" ", data)
        if not self._parts or self._parts[-1].endswith(" "):
            data = data.removeprefix(" ")
        if data:
            self._parts.append(data)
            self._length += len(data)

    def _give(self, opened: _Open) -> None:
        """What is said for the text of the element that ends here."""
        attributes = opened.attributes
        name = "alias" if opened.tag == "sub" else "ph"
        if name not in attributes:
            raise self._error(f"<{opened.tag}> needs the attribute {name}.")
        written = "".join(self._parts)[opened.start :]
        start = opened.start + len(written) - len(written.lstrip())
        end = opened.start + len(written.rstrip())
        if start >= end:
            raise self._error(f"<{opened.tag}> is empty; it needs the text as it is written.")
        try:
            if opened.tag == "sub":
                spoken = respelled(attributes["alias"], self.language)
            elif attributes.get("alphabet", "ipa") != "ipa":
                raise TextError(f"the alphabet {attributes['alphabet']!r} is not known; use 'ipa'.")
            else:
                spoken = ipa_in_text(ipa_of(attributes["ph"], self.symbols))
        except TextError as error:
            raise self._error(f"<{opened.tag}>: {error}") from error
        self._given.append(Given(start, end, spoken))

    def _close_section(self, pause: Pause | None, rate: float = 0.0) -> None:
        """End a section here; where nothing was said, the one before may get a longer pause."""
        text, given = "".join(self._parts).rstrip(), self._given
        self._parts, self._length, self._given = [], 0, []
        last = self.sections[-1] if self.sections else None
        marks = _MARKS.match(text)
        if marks and any(g.start < marks.end() for g in given):
            marks = None  # they are said
        if marks and last:  # they follow an element, but end what it says
            last.text += marks[0].rstrip()
            text = text[marks.end() :]
            given = [Given(g.start - marks.end(), g.end - marks.end(), g.spoken) for g in given]
        if given or any(character.isalnum() for character in text):
            section = Section(text, given, rate or self.rates[-1], pause, goes_on=pause is None)
            section.before_seconds, self.before_seconds = self.before_seconds, 0.0
            self.sections.append(section)
        elif pause and last:
            shorter = last.pause is None or _KINDS.index(pause) > _KINDS.index(last.pause)
            last.pause = pause if shorter else last.pause

    def _break(self, attributes: dict[str, str]) -> None:
        """Silence after what was said last, or before all of it."""
        seconds = self._seconds(attributes)
        self._close_section(None)
        if self.sections:
            last = self.sections[-1]
            last.break_seconds = (last.break_seconds or 0.0) + seconds
        else:
            self.before_seconds += seconds

    def _seconds(self, attributes: dict[str, str]) -> float:
        """How long a break is."""
        if "time" not in attributes:
            strength = attributes.get("strength", "medium")
            if strength not in _STRENGTHS:
                raise self._error(
                    f"<break> has the strength {strength!r}. Known: {', '.join(_STRENGTHS)}."
                )
            return _STRENGTHS[strength]
        found = _TIME.fullmatch(attributes["time"].strip())
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else -1.0
        if not 0 <= seconds <= MAX_BREAK_SECONDS:
            raise self._error(
                f'<break> has the time {attributes["time"]!r}; write it as "500ms" or "1.5s", at '
                f"most {MAX_BREAK_SECONDS:.0f} s."
            )
        return seconds

    def _rate(self, rate: str | None) -> float:
        """A rate as a factor of the speed."""
        if rate is None:
            raise self._error("<prosody> needs the attribute rate; it is the only one known.")
        found = _PERCENT.fullmatch(rate.strip())
        factor = float(found[1]) / 100 if found else _RATES.get(rate.strip(), 0.0)
        if not 0.5 <= factor <= 2.0:
            raise self._error(
                f"<prosody> has the rate {rate!r}; it must be 50% to 200%, or one of: "
                f"{', '.join(_RATES)}."
            )
        return factor

    def _check_language(self, tag: str | None) -> None:
        """Refuse a document in another language than the one that is spoken."""
        try:
            same = (
                tag is None
                or tag.strip().lower() == "en"
                or (resolve_language(tag) == self.language)
            )
        except InputError as error:
            raise self._error(f"xml:lang: {error}") from error
        if not same:
            raise self._error(
                f"xml:lang is {tag!r}, but {self.language!r} is spoken. Pass language={tag!r}."
            )
