"""Characters of a text reduced to those the rules know, each with its place in the source."""

import html
import logging
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_SAME_AS = {
    **dict.fromkeys("‘’‚‛′ʼ´ʹ＇", "'"),
    **dict.fromkeys("“”„‟″«»‹›〝〞「」『』＂", '"'),
    **dict.fromkeys("‐‑−﹣－", "-"),
    **dict.fromkeys("‒", "–"),
    **dict.fromkeys("―⸺⸻", "—"),
    **dict.fromkeys("•‣◦▪●∙⁃", "•"),
    **dict.fromkeys("™®℠©", ""),
    **dict.fromkeys("ºﾟ˚", "°"),
    **dict.fromkeys("\r\x85\u2028\u2029\v\f", "\n"),
    "。": ". ",
    "、": ", ",
    "№": "No. ",
    "℃": "°C",
    "℉": "°F",
    "ß": "ss",
    "\t": " ",
}
_KEPT = frozenset("…—–'\"°²³¹⁰⁴⁵⁶⁷⁸⁹µ×÷±·≈≠≤≥→←√∞£€¥¢₹₩₽₺₿§¶•¡¿")
_GREEK = {
    letter: unicodedata.name(letter).rsplit(" ", 1)[-1].lower().replace("lamda", "lambda")
    for letter in "αβγδεζηθικλμνξοπρσςτυφχψωΓΔΘΛΞΠΣΦΨΩ"
}
_SPECIAL = re.compile(
    r"\r\n|&#?\w{2,8};|[A-Za-z][\u0300-\u036f]+|[^\x20-\x7e\n][\u0300-\u036f]*| {2,}|\n[ \n]+"
)
_EMOJI_GLUE = frozenset("\u200d\ufe0e\ufe0f\u20e3")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text of known characters; character i stands for `source[starts[i]:ends[i]]`."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def script_of(letter: str) -> str:
    """Unicode's name of a letter's script, such as "Latin" or "Cyrillic"; "" when not a letter."""
    if letter.isascii():
        return "Latin" if letter.isalpha() else ""
    if not letter.isalpha():
        return ""
    name = unicodedata.name(letter, "unknown").split(" ")[0].split("-")[0].capitalize()
    if name == "Cjk":
        return "Chinese"
    folded = unicodedata.normalize("NFKC", letter)
    return "Latin" if name in {"Modifier", "Feminine", "Masculine"} or folded.isascii() else name


def clean(text: str) -> Cleaned:
    """`text` with one kind of quote, dash and space, composed letters, and nothing unspeakable.

    Emoji, control and invisible characters go. So do words in a script that is not spoken, with
    one warning that counts their letters.
    """
    starts, ends, parts = array("q"), array("q"), []
    unspoken: Counter[str] = Counter()
    place = 0
    for found in _SPECIAL.finditer(text):
        start, end = found.span()
        parts.append(text[place:start])
        starts.extend(range(place, start))
        ends.extend(range(place + 1, start + 1))
        new = _cleaned(found[0], text[start - 1 : start], text[end : end + 1], unspoken)
        parts.append(new)
        starts.extend([start] * len(new))
        ends.extend([end] * len(new))
        place = end
    parts.append(text[place:])
    starts.extend(range(place, len(text)))
    ends.extend(range(place + 1, len(text) + 1))
    if unspoken:
        counts = ", ".join(f"{script} x{count}" for script, count in unspoken.most_common())
        logger.warning("Dropped letters of scripts that are not spoken: %s", counts)
    return Cleaned("".join(parts), starts, ends)


def clean_around(text: str, spans: Sequence[tuple[int, int]]) -> Cleaned:
    """`clean(text)` with "xx" or "Xx" in place of each of `spans`, which are in order."""
    starts, ends, parts = array("q"), array("q"), []
    place = 0
    for start, end in (*spans, (len(text), len(text))):
        gap = clean(text[place:start])
        parts.append(gap.text)
        starts.extend(place + i for i in gap.starts)
        ends.extend(place + i for i in gap.ends)
        if start < end:
            parts.append("Xx" if text[start].isupper() else "xx")
            starts.extend([start] * 2)
            ends.extend([end] * 2)
        place = end
    return Cleaned("".join(parts), starts, ends)


def _cleaned(found: str, before: str, after: str, unspoken: Counter[str]) -> str:
    """What stands for a special character or run; counts letters that cannot be spoken."""
    if found[0] in " \n\r":
        return found if found == " " else _space(found)
    if found[0] == "&":
        return _entity(found)
    letter = unicodedata.normalize("NFC", found)
    if letter in _SAME_AS or letter in _KEPT:
        return _SAME_AS.get(letter, letter)
    alone = "Greek" not in {script_of(before), script_of(after)}  # a sign, not a Greek word
    if letter in _GREEK and alone:
        return f" {_GREEK[letter]} "
    return _by_category(letter, unspoken)


def _space(run: str) -> str:
    """One space, one line break, or two for a paragraph."""
    breaks = run.replace("\r\n", "\n").count("\n")
    return "\n\n" if breaks > 1 else "\n" if breaks or "\r" in run else " "


def _entity(found: str) -> str:
    """The character of an HTML entity, or what stood there."""
    character = html.unescape(found)
    if character == "\u00a0":
        return " "
    return character if character.isascii() and character.isprintable() else found


def _by_category(letter: str, unspoken: Counter[str]) -> str:
    """What stands for a character without a rule of its own."""
    category = unicodedata.category(letter[0])
    if letter[0].isalpha():
        script = script_of(letter[0])
        if script == "Latin":
            return _latin(letter)
        unspoken[script] += 1
        return " "
    if category[0] == "Z":
        return " "
    if category[0] == "C" or letter[0] in _EMOJI_GLUE or category[0] == "M":
        return ""
    if category[0] == "N":
        return _numeric(letter[0])
    folded = unicodedata.normalize("NFKC", letter)
    return folded if folded.isascii() else " "


def _latin(letter: str) -> str:
    """A Latin letter that espeak reads: up to U+017F with its marks, plain beyond."""
    if len(letter) == 1 and "\u00c0" <= letter <= "\u017e" and letter not in "ŉĿŀ":
        return letter
    folded = unicodedata.normalize("NFKC", letter)
    base = "".join(c for c in unicodedata.normalize("NFD", folded) if not unicodedata.combining(c))
    return base if base.isascii() else "".join(c for c in base if c <= "\u017e")


def _numeric(character: str) -> str:
    """A digit or fraction in ASCII: "１" is "1", "½" is " 1/2"."""
    folded = unicodedata.normalize("NFKC", character)
    if "\u2044" in folded:
        return " " + folded.replace("\u2044", "/")
    if folded.isascii():
        return folded
    digit = unicodedata.decimal(character, None)
    return " " if digit is None else str(digit)
