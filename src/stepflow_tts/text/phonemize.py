"""From normalized text to phonemes, by espeak-ng."""

import logging
import re
import threading

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


def phonemize(text: str, language: str) -> str:
    """IPA of `text`, one character a symbol, with stress, single spaces and , ; : . ! ? " kept.

    Dashes and brackets become commas and an ellipsis three dots, as they sound. Text without
    anything to speak gives its punctuation only.

    Args:
        text: normalized text; line breaks count as spaces.
        language: "en-us" or "en-gb", or a tag that `resolve_language` knows.

    Raises:
        OptionError: the language is not spoken.
    """
    language = resolve_language(language)
    folded = _fold(text)
    with _lock:
        spoken = _backend(language).phonemize([folded], strip=True)
    return _SPACE.sub(" ", "".join(spoken).translate(_PHONES)).strip()


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
