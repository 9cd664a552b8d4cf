"""Numbers as words, over num2words."""

import functools
import re

from num2words import num2words

LONGEST = 15  # digits; a longer number is read digit by digit

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DENOMINATORS = {2: "half", 4: "quarter"}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_NUMERAL = re.compile(
    r"(?=[MDCLXVI])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
)

NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,6}(?!,?\d)|\d+)(?:\.\d+)?|\.\d+"
"""Pattern of a number without a sign: 7, 1,234, 3.14, .5"""


@functools.lru_cache(maxsize=4096)
def cardinal(value: int) -> str:
    """Such as "one hundred and one" for 101."""
    return str(num2words(value)).replace(",", "")


@functools.lru_cache(maxsize=1024)
def ordinal(value: int) -> str:
    """Such as "twenty-first" for 21."""
    return str(num2words(value, to="ordinal")).replace(",", "")


@functools.lru_cache(maxsize=1024)
def year(value: int) -> str:
    """Such as "nineteen oh five" for 1905, "twenty twenty-four" for 2024."""
    return str(num2words(value, to="year")).replace("oh-", "oh ").replace(",", "")


def digits(text: str) -> str:
    """Digit by digit; every other character is left out."""
    return " ".join(_DIGITS[int(character)] for character in text if character in "0123456789")


def spoken(text: str) -> str:
    """A number as NUMBER matches it, in words; leading zeros and long ones digit by digit."""
    whole, _, decimals = text.replace(",", "").partition(".")
    if len(whole) > LONGEST or (len(whole) > 1 and whole[0] == "0"):
        words = digits(whole)
    else:
        words = cardinal(int(whole)) if whole else ""
    if decimals:
        words = f"{words} point {digits(decimals)}"
    return words.strip()


def is_one(text: str) -> bool:
    """Whether a noun after this number is singular."""
    return text in {"1", "-1"}


def fraction(numerator: int, denominator: int) -> str:
    """Such as "two thirds" for 2/3, "one half" for 1/2."""
    name = _DENOMINATORS.get(denominator) or ordinal(denominator)
    plural = "halves" if name == "half" else f"{name}s"
    return f"{cardinal(numerator)} {name if numerator == 1 else plural}"


def decade(value: int) -> str:
    """Such as "nineteen nineties" for 1990, "eighteen hundreds" for 1800, "nineties" for 90."""
    words = year(value) if value >= 1000 else cardinal(value)
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def roman(text: str) -> int | None:
    """The value of a well-formed Roman numeral in capitals, or None."""
    if not text or not _ROMAN_NUMERAL.fullmatch(text):
        return None
    values = [_ROMAN[letter] for letter in text]
    return sum(
        -value if value < following else value
        for value, following in zip(values, [*values[1:], 0], strict=True)
    )


def letters(text: str) -> str:
    """Letters one by one: "P-M" for "PM"; the hyphens stop espeak from reading words or "a"."""
    spelled = "-".join(character for character in text if character.isalpha())
    return "A-" if spelled in {"A", "a"} else spelled
