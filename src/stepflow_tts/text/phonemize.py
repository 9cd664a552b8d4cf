"""From normalized text to phonemes, by espeak-ng."""

import logging
import re
import threading
from collections.abc import Sequence

import espeakng_loader
from phonemizer.backend import EspeakBackend
from phonemizer.backend.espeak.wrapper import EspeakWrapper

from stepflow_tts.errors import OptionError

VOICES: dict[str, str] = {"en-us": "en-us", "en-gb": "en-gb-x-rp"}
"""The languages that we speak, and the espeak-ng voice of each."""

_TAGS = {"en": "en-us", **{language: language for language in VOICES}}

# Speech corpora hardly write these marks, so a model learns nothing for them: what they sound like.
_MARKS = str.maketrans(
    {
        "…": "... ",
        "“": '"',
        "”": '"',
        "„": '"',
        "«": '"',
        "»": '"',
        "’": "'",
        "‘": "'",
        "¡": "",
        "¿": "",
    }
)
_BREAK = re.compile(r" ?[—–()\[\]{}][—–()\[\]{} ]*")
_PAUSES = frozenset(",;:.!?")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")  # espeak stops reading at NUL
_SPACE_BEFORE_MARK = re.compile(r" ([,;:.!?])")

# espeak's trill (in letter names), loch's and Llanelli's consonants and the nasal tilde of
# croissant: twice in 10 000 sentences, too rare to be learnt, so what many English speakers say.
_PHONES = str.maketrans({"r": "ɹ", "x": "k", "ɬ": "l", "\u0303": "n"})

# Each symbol of IPA that is given in a text is written as the letter of the second plane that lies
# _PLANE above it. `normalize` leaves no such letter of the user's, so these pass through it and
# through `split` as words of their true length.
_PLANE = 0x20000
_GIVEN = re.compile("([\U00020000-\U0002ffff]+(?: [\U00020000-\U0002ffff]+)*)")
_NO_LETTERS = re.compile(r"[,;:.!?\"]+")

# A backend shared by four threads gave wrong phonemes in 8 of 120 calls.
_lock = threading.Lock()
_backends: dict[str, EspeakBackend] = {}


def resolve_language(tag: str) -> str:
    """The language, "en-us" or "en-gb", that a BCP 47 tag such as "en", "en-US" or "en_gb" means.

    Raises:
        OptionError: it is another language.
    """
    language = _TAGS.get(tag.strip().lower().replace("_", "-")) if isinstance(tag, str) else None
    if language is None:
        raise OptionError(
            f"The language {tag!r} is not spoken. Choose 'en-us' (or 'en') or 'en-gb'."
        )
    return language


def as_spoken(ipa: str) -> str:
    """`ipa` with the phones that `phonemize` writes in place of rare ones."""
    return ipa.translate(_PHONES)


def ipa_in_text(ipa: str) -> str:
    """`ipa` in the letters that `phonemize` takes for given IPA, to stand in a text."""
    return "".join(c if c == " " else chr(_PLANE + ord(c)) for c in ipa)


def phonemize(text: str, language: str) -> str:
    """IPA of `text`, one character a symbol, with stress, single spaces and , ; : . ! ? " kept.

    Dashes and brackets become commas and an ellipsis three dots, as they sound. Text without
    anything to speak gives its punctuation only.

    Args:
        text: normalized text; line breaks count as spaces, and `ipa_in_text` is taken as it is.
        language: "en-us" or "en-gb", or a tag that `resolve_language` knows.

    Raises:
        OptionError: the language is not spoken.
    """
    language = resolve_language(language)
    runs = _GIVEN.split(_fold(text))  # every other one is given
    said = [_given(run) if i % 2 else _say(run, language) for i, run in enumerate(runs)]
    return _SPACE.sub(" ", "".join(said)).strip()


def phonemize_words(words: Sequence[str], language: str) -> list[str]:
    """IPA of each of `words` as if it stood alone, without punctuation; one may be many words.

    Raises:
        OptionError: the language is not spoken.
    """
    language = resolve_language(language)
    plain = [_NO_LETTERS.sub(" ", _fold(word)).strip() for word in words]
    # A line of nothing but marks, or none at all, would shift the lines after it.
    spoken = [word for word in plain if word and not _GIVEN.search(word)]
    with _lock:
        lines = iter(_backend(language).phonemize(spoken, strip=True))
    return [
        phonemize(word, language)
        if not word or _GIVEN.search(word)
        else _SPACE.sub(" ", next(lines).translate(_PHONES)).strip()
        for word in plain
    ]


def _say(text: str, language: str) -> str:
    """IPA of folded text, with the spaces at its ends."""
    with _lock:
        spoken = _backend(language).phonemize([text], strip=True)
    before, after = text[:1].isspace(), text[-1:].isspace()
    return " " * before + "".join(spoken).translate(_PHONES) + " " * after


def _given(letters: str) -> str:
    """The IPA that `ipa_in_text` wrote."""
    return "".join(c if c == " " else chr(ord(c) - _PLANE) for c in letters)


def _fold(text: str) -> str:
    """`text` on one line, with the punctuation of speech corpora only."""
    text = _SPACE.sub(" ", text.translate(_MARKS))
    text = _BREAK.sub(_comma, text).strip(" ,")
    return _SPACE_BEFORE_MARK.sub(r"\1", text)


def _comma(found: re.Match[str]) -> str:
    """A comma for a dash or bracket, unless a mark beside it makes the pause already."""
    text, start, end = found.string, found.start(), found.end()
    if end < len(text) and text[end] in _PAUSES:
        return ""
    return " " if _PAUSES.intersection(text[max(0, start - 2) : start].rstrip('"')[-1:]) else ", "


def _backend(language: str) -> EspeakBackend:
    """The backend of a language, made once; the caller holds the lock."""
    if language not in _backends:
        # Without both paths the process aborts where espeak-ng is not installed.
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        quiet = logging.getLogger(f"{__name__}.phonemizer")
        quiet.setLevel(logging.ERROR)
        _backends[language] = EspeakBackend(
            VOICES[language],
            preserve_punctuation=True,
            with_stress=True,
            language_switch="remove-flags",
            logger=quiet,
        )
    return _backends[language]
