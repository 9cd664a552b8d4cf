"""Rules for fractions, ranges, arithmetic, ordinals and plain numbers."""

import re

from stepflow_tts.text import numbers
from stepflow_tts.text.numbers import NUMBER
from stepflow_tts.text.rule import rule

_SET_FRACTIONS = {
    "24/7": "twenty-four seven",
    "9/11": "nine eleven",
    "50/50": "fifty-fifty",
    "20/20": "twenty twenty",
}
_MAGNITUDES = {"k": "thousand", "K": "thousand", "M": "million", "bn": "billion", "B": "billion"}
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_SIGNS = {
    "+": "plus",
    "=": "equals",
    "==": "equals",
    "<": "less than",
    ">": "greater than",
    "<=": "less than or equal to",
    ">=": "greater than or equal to",
    "≤": "less than or equal to",
    "≥": "greater than or equal to",
    "!=": "not equal to",
    "≠": "not equal to",
    "≈": "approximately",
    "±": "plus or minus",
    "×": "times",
    "*": "times",
    "÷": "divided by",
    "/": "divided by",
    "√": "square root of",
    "∞": "infinity",
    "→": "to",
    "->": "to",
    "=>": "to",
}


def _fraction(found: re.Match[str]) -> str:
    """Such as "three quarters", "one hundred and twenty over eighty"."""
    numerator, denominator = int(found[1]), int(found[2])
    if found[0] in _SET_FRACTIONS:
        return _SET_FRACTIONS[found[0]]
    if 0 < numerator < denominator and (denominator <= 20 or denominator in {32, 64, 100}):
        return numbers.fraction(numerator, denominator)
    return f"{numbers.cardinal(numerator)} over {numbers.cardinal(denominator)}"


def _out_of_ten(found: re.Match[str]) -> str | None:
    """Such as "nine point five out of ten"; 1/10 is a tenth."""
    return None if found[1] == "1" else f"{numbers.spoken(found[1])} out of ten"


def _mixed(found: re.Match[str]) -> str:
    """Such as "two and a half", "one and three quarters"."""
    part = numbers.fraction(int(found[2]), int(found[3]))
    return f"{numbers.spoken(found[1])} and {re.sub('^one ', 'a ', part)}"


def _magnitude(found: re.Match[str]) -> str:
    return f"{numbers.spoken(found[1])} {_MAGNITUDES[found[2]]}"


def _sign(found: re.Match[str]) -> str:
    return f" {_SIGNS[found[1]]} "


def _dimensions(found: re.Match[str]) -> str:
    """Such as "three by four", "nineteen twenty by ten eighty"."""
    sides = [int(side) for side in re.findall(r"\d+", found[0])]
    four_digits = 1000 < max(sides) < 10_000
    return " by ".join(
        numbers.year(side) if four_digits and side > 999 else numbers.cardinal(side)
        for side in sides
    )


def _power(found: re.Match[str]) -> str:
    """Such as "squared", "cubed", "to the power of six"."""
    power = found[0].translate(_POWERS)
    named = {"2": " squared", "3": " cubed"}.get(power)
    return named or f" to the power of {numbers.spoken(power)}"


RULES = (
    rule(r"(?<![\w.,$])401\(?k\)?(?!\w)", lambda _: "four oh one K"),
    rule(r"(?<![\w./,-])(\d{1,3})[ -]([1-9])/([2-9]|1\d)(?![\w/]|[.,]\d)", _mixed),
    rule(r"(?<![\w./,])(\d{1,2}(?:\.\d{1,2})?)/10(?![\w/]|[.,]\d)", _out_of_ten),
    rule(r"(?<![\w./,])(\d{1,3})/([1-9]\d{0,2})(?:rds?|ths?|nds?)?(?![\w/]|[.,]\d)", _fraction),
    rule(
        r"(?<!\w)(\d{1,9}|\d{1,3}(?:,\d{3}){1,3})(?:st|nd|rd|th)\b",
        lambda m: numbers.ordinal(int(m[1].replace(",", ""))),
    ),
    rule(
        rf"(?<![\w.,])({NUMBER})(k|K|M|bn|B)\b(?! (?:run|race|video|TV|display|monitor|res|screen))",
        _magnitude,
    ),
    rule(rf"(?<![\w.,])({NUMBER})x(?!\w)", lambda found: f"{numbers.spoken(found[1])} times"),
    rule(r"(?<![\w.,])\d{1,5}(?: ?x ?\d{1,5}|×\d{1,5}){1,2}(?!\w|[.,]\d)", _dimensions),
    rule(r"(?<![\w:.])\d{1,3}(:)\d{1,3}(?![\w:]|\.\d)", lambda _: " to ", group=1),
    # Arithmetic: "-" is minus before a number, between spaces, and where "=" follows.
    rule(r"(?<=[\d)])(-)(?=\d{1,15}(?:\.\d{1,15})? ?=)", lambda _: " minus ", group=1),
    rule(r"(?<=[\d)] )([-])(?= [\d(])", lambda _: "minus", group=1),
    rule(r"(?<=\d)[-–](?=\.?\d)", lambda _: " to "),
    rule(r"(?<=\d) – (?=\.?\d)", lambda _: " to "),
    rule(r"(?<![\w)\].])-(?=\.?\d)", lambda _: "minus "),
    rule(r"(?<=[\w)] )([<>!=]=|[-=]>|[+=<>*/×÷])(?= [-\w(.])", _sign, group=1),
    rule(r"(?<=[\d)])(==|[+=*×÷])(?=[\d(.-])", _sign, group=1),
    rule(r"(?<![\w<>=])([<>]=?)(?= ?\.?\d)", _sign, group=1),
    rule(r"([≤≥≠≈±×÷√∞→])", _sign),
    rule(r"~(?= ?[$£€]?\.?\d)", lambda _: "about "),
    rule(r"(?<=[\w)])\^(?=[\w(-])", lambda _: " to the power of "),
    rule(r"(?<=[\w)])[⁰¹²³⁴-⁹]{1,9}", _power),
    # What is left of years and numbers.
    rule(r"(?<![\w.,])(?<!\d-)((?:1[1-9]|20)\d\d)(?!\w|[.,]\d)", lambda m: numbers.year(int(m[1]))),
    rule(rf"(?<!\w)(?<![A-Za-z]-)(?:{NUMBER})(?!\w)", lambda found: numbers.spoken(found[0])),
)
