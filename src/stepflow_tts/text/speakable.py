"""Whether a text can be spoken at all."""

from collections import Counter

from stepflow_tts.errors import TextError
from stepflow_tts.text.characters import script_of

MOST_FOREIGN = 0.5
"""A text with a larger share of letters in another script is refused, not thinned out."""

_SPOKEN = frozenset({"Latin"})


def check_speakable(text: str) -> None:
    """Nothing, when `text` has something that can be spoken.

    Raises:
        TextError: it is not a string, is empty or white space, holds NUL characters, has no letter
            or digit, or is mostly in a script that is not spoken.
    """
    if not isinstance(text, str):
        raise TextError(f"The text must be a string, not {type(text).__name__}.")
    if not text.strip():
        raise TextError(f"The text {text[:20]!r} is empty. Give at least one word in English.")
    if "\0" in text:
        raise TextError(
            f"The text holds a NUL character at position {text.index(chr(0))}; it may be a binary "
            "file, or text in UTF-16. Give plain text."
        )
    scripts = Counter(script_of(character) for character in text if character.isalnum())
    digits = scripts.pop("", 0)
    letters = sum(scripts.values())
    if not letters + digits:
        raise TextError(
            f"The text {text[:40]!r} holds only punctuation, symbols or emoji. "
            "Give at least one word in English."
        )
    foreign = letters - sum(scripts[script] for script in _SPOKEN)
    if foreign > MOST_FOREIGN * letters:
        script = next(name for name, _ in scripts.most_common() if name not in _SPOKEN)
        raise TextError(
            f"The text {text[:40]!r} is written mostly in {script} letters. "
            "Only English in Latin letters is spoken ('en-us', 'en-gb')."
        )
