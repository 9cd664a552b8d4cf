"""How words are said that no rule knows: a user's own list, as IPA or in other words."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from stepflow_tts.errors import OptionError, TextError
from stepflow_tts.text.normalize import Given, normalize
from stepflow_tts.text.phonemize import as_spoken, ipa_in_text
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS, VOWELS, is_phone, is_silent

LexiconSource: TypeAlias = str | os.PathLike[str] | Mapping[str, str]
"""A file's path, or words and how they are said."""

LONGEST_ENTRY = 200  # characters of a word, or of what is said for it

_START = re.compile(r"(?<!\w)(?:\w+|[^\w\s])")
_POSSESSIVE = re.compile(r"['’]s(?!\w)")
_HISSING = tuple("szʃʒ")
_VOICELESS = tuple("ptkfθ")

_STRESS = re.compile(f"([ˈˌ])([^{VOWELS} ˈˌ]+)(?=[{VOWELS}])")  # ˈmɑː; espeak-ng has mˈɑː
_SAME_AS = str.maketrans(
    {"g": "ɡ", "'": "ˈ", "’": "ˈ", ":": "ː", ".": "", "\u0361": "", "\u035c": ""}
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One word; `said` is IPA or other words, in the form that stands in a text."""

    word: str
    said: str
    is_ipa: bool


class Lexicon:
    """Words and how they are said.

    A word in small letters is found in any case, one with a capital only as it is written: so
    "us" can stay a word while "US" is spelled. Its possessive ("Nguyen's") is found too.

    A file has one word a line, a tab, and how it is said; empty lines and those that begin with #
    count for nothing:

        nginx<TAB>engine x
        Nguyen<TAB>/wˈɪn/
    """

    def __init__(self, source: LexiconSource, symbols: tuple[str, ...] = DEFAULT_SYMBOLS) -> None:
        """Read and check all of it.

        Args:
            source: the path of a file in UTF-8, or a mapping of words to IPA between slashes or to
                other words.
            symbols: that the checkpoint knows.

        Raises:
            OptionError: a file that cannot be read, or a bad entry; the message tells its line.
        """
        self._entries: dict[str, list[_Entry]] = {}
        places: dict[str, str] = {}
        for place, written, said in _entries_of(source):
            word = written.replace("’", "'")
            if word in places:
                raise OptionError(f"{place}: {word!r} is there already, in {places[word]}.")
            places[word] = place
            start = _START.match(word)
            if start is None or len(word) > LONGEST_ENTRY or word != word.strip():
                raise OptionError(
                    f"{place}: {word[:40]!r} is no word to look for; it needs 1 to "
                    f"{LONGEST_ENTRY} characters and no space around them."
                )
            try:
                entry = _entry(word, said, symbols)
            except TextError as error:
                raise OptionError(f"{place}: {error}") from error
            self._entries.setdefault(start[0].lower(), []).append(entry)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: len(entry.word), reverse=True)

    def __len__(self) -> int:
        """How many words it holds."""
        return sum(map(len, self._entries.values()))

    def find(self, text: str) -> list[Given]:
        """Its words in `text`, in order, with what is said for each; the longest one wins."""
        found: list[Given] = []
        for start in _START.finditer(text):
            if found and start.start() < found[-1].end:
                continue
            for entry in self._entries.get(start[0].lower(), ()):
                end = start.start() + len(entry.word)
                if _is_written(entry.word, text[start.start() : end]) and _ends_word(text, end):
                    found.append(_given(entry, text, start.start(), end))
                    break
        return found


def ipa_of(written: str, symbols: tuple[str, ...]) -> str:
    """IPA as espeak-ng writes it: stress before the vowel, no syllable dots and ties, ɡ for g.

    Raises:
        TextError: it is empty, too long, or holds a symbol that the checkpoint does not know.
    """
    ipa = as_spoken(" ".join(written.translate(_SAME_AS).split()))
    ipa = _STRESS.sub(r"\2\1", ipa)
    unknown = [c for c in ipa if c != " " and (c not in symbols or is_silent(c))]
    if unknown:
        known = "".join(s for s in symbols if len(s) == 1 and not is_silent(s))
        raise TextError(
            f"/{written}/ holds {unknown[0]!r} (U+{ord(unknown[0]):04X}), which is no IPA symbol "
            f"of this checkpoint. Known: {known}"
        )
    if not any(is_phone(c) for c in ipa) or len(ipa) > LONGEST_ENTRY:
        raise TextError(
            f"/{written[:40]}/ has {len(ipa)} IPA symbols; it needs 1 to {LONGEST_ENTRY}."
        )
    return ipa


def respelled(words: str, language: str = "en-us") -> str:
    """Other words to say, as `normalize` has them, but without a full stop of their own.

    Raises:
        TextError: they hold nothing to say, or are too long.
    """
    if len(words) > LONGEST_ENTRY:
        raise TextError(f"{words[:40]!r} has {len(words)} characters; {LONGEST_ENTRY} are allowed.")
    words = " ".join(words.split())
    said = normalize(words, language=language)
    return said if words.endswith(".") else said.removesuffix(".")


def _entries_of(source: LexiconSource) -> Iterator[tuple[str, str, str]]:
    """Place, word and how it is said, of each entry."""
    if isinstance(source, Mapping):
        for word, said in source.items():
            if not isinstance(word, str) or not isinstance(said, str):
                raise OptionError(f"Lexicon: {word!r} is said {said!r}; both must be strings.")
            yield f"Lexicon, {word[:40]!r}", word, said
        return
    if not isinstance(source, str | os.PathLike):
        raise OptionError(
            f"The lexicon is a {type(source).__name__}; it must be a path or a mapping."
        )
    for number, line in enumerate(_read(Path(source)).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, said = line.partition("\t")
        if not tab or "\t" in said:
            raise OptionError(
                f"{source}, line {number}: {line[:60]!r} has {line.count(chr(9))} tabs; a line is "
                "a word, one tab, and IPA between slashes or other words."
            )
        yield f"{source}, line {number}", word.strip(), said.strip()


def _read(path: Path) -> str:
    """The text of a file."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise OptionError(f"Cannot read the lexicon {path}: {error}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8. "
            "Convert it with iconv -t UTF-8."
        ) from error


def _entry(word: str, said: str, symbols: tuple[str, ...]) -> _Entry:
    """The checked entry."""
    if not said.startswith("/"):
        return _Entry(word, respelled(said), is_ipa=False)
    if len(said) < 2 or not said.endswith("/"):
        raise TextError(f"{said[:40]!r} begins with a slash; IPA ends with one too.")
    return _Entry(word, ipa_of(said[1:-1], symbols), is_ipa=True)


def _is_written(word: str, found: str) -> bool:
    """Whether `found` is the word, in a case that it allows."""
    found = found.replace("’", "'")
    return found == word or (word == word.lower() and found.lower() == word)


def _ends_word(text: str, end: int) -> bool:
    """Whether no word goes on at `end`."""
    return not (text[end - 1].isalnum() and text[end : end + 1].isalnum())


def _given(entry: _Entry, text: str, start: int, end: int) -> Given:
    """What is said for an entry's word; given IPA takes the possessive's s with it."""
    if not entry.is_ipa:
        return Given(start, end, entry.said)
    ipa, possessive = entry.said, _POSSESSIVE.match(text, end)
    if possessive:
        end = possessive.end()
        ipa += "ᵻz" if ipa.endswith(_HISSING) else "s" if ipa.endswith(_VOICELESS) else "z"
    return Given(start, end, ipa_in_text(ipa))
