"""Rules for measures: a number with a unit."""

import re
from collections.abc import Iterable

from stepflow_tts.text import numbers
from stepflow_tts.text.numbers import NUMBER
from stepflow_tts.text.rule import any_of, full_stop_after, rule

_PREFIXED = {  # singular without prefix: prefixes that occur
    "m": ("meter", ("k", "c", "m", "µ", "n", "")),
    "g": ("gram", ("k", "m", "µ", "")),
    "l": ("liter", ("m", "c", "d", "")),
    "L": ("liter", ("m", "")),
    "s": ("second", ("m", "µ", "n", "")),
    "Hz": ("hertz", ("k", "M", "G", "T", "")),
    "B": ("byte", ("k", "K", "M", "G", "T", "P")),
    "bps": ("bit per second", ("k", "K", "M", "G")),
    "bit": ("bit", ("k", "M", "G")),
    "W": ("watt", ("m", "k", "M", "G", "T")),
    "Wh": ("watt hour", ("k", "M", "G", "T", "")),
    "V": ("volt", ("m", "k")),
    "A": ("amp", ("m",)),
    "Ah": ("amp hour", ("m", "")),
    "Pa": ("pascal", ("k", "h", "M")),
    "N": ("newton", ("k",)),
    "J": ("joule", ("k", "M")),
    "cal": ("calorie", ("k", "")),
    "px": ("pixel", ("M", "")),
}
_PREFIXES = {
    "": "",
    "n": "nano",
    "µ": "micro",
    "m": "milli",
    "c": "centi",
    "d": "deci",
    "h": "hecto",
    "k": "kilo",
    "K": "kilo",
    "M": "mega",
    "G": "giga",
    "T": "tera",
    "P": "peta",
}
_OTHERS = {
    "tsp": "teaspoon",
    "tbsp": "tablespoon",
    "mi": "mile",
    "mile": "mile",
    "ft": "foot",
    "yd": "yard",
    "yds": "yard",
    "lb": "pound",
    "lbs": "pound",
    "oz": "ounce",
    "gal": "gallon",
    "pt": "point",
    "t": "ton",
    "ha": "hectare",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "min": "minute",
    "mins": "minute",
    "sec": "second",
    "secs": "second",
    "mo": "month",
    "yr": "year",
    "yrs": "year",
    "mph": "mile per hour",
    "kph": "kilometer per hour",
    "kmh": "kilometer per hour",
    "fps": "frame per second",
    "rpm": "revolution per minute",
    "mpg": "mile per gallon",
    "bpm": "beat per minute",
    "dpi": "dot per inch",
    "ppm": "part per million",
    "dB": "decibel",
    "psi": "P-S-I",
    "sq ft": "square foot",
    "sq m": "square meter",
    "sq km": "square kilometer",
    "sq mi": "square mile",
    "cu ft": "cubic foot",
    "fl oz": "fluid ounce",
}
UNITS = {
    prefix + symbol: _PREFIXES[prefix] + name
    for symbol, (name, prefixes) in _PREFIXED.items()
    for prefix in prefixes
} | _OTHERS
"""Symbol of a unit -> its name in the singular."""

_ATTACHED = {"in": "inch", "V": "volt", "A": "amp", "W": "watt", "N": "newton", "J": "joule"}
"""Units that are words or letters of their own after a space: 5in is inches, "5 in" is not."""

_UNCHANGED = ("hertz", "P-S-I")
_IRREGULAR = {"foot": "feet", "inch": "inches"}
_POWERS = {"²": "square ", "³": "cubic "}
_PER = {"h": "hour", "hr": "hour", "s": "second", "sec": "second", "min": "minute", "mo": "month"}
_PER |= {"yr": "year", "wk": "week", "d": "day", "kg": "kilogram", "lb": "pound", "l": "liter"}
_PER |= {"L": "liter", "ml": "milliliter", "mL": "milliliter", "km": "kilometer", "m": "meter"}
_PERIODS = {"second", "minute", "hour", "day", "week", "month", "year", "quarter", "night"}
_PERIODS |= {"person", "user", "unit", "item", "head", "mile", "gallon", "pound", "ounce"}


_DOTTED = "min mins hr hrs sec secs lb lbs oz ft yd yds mi in yr yrs mo gal"
"""Units that are written with a period; it may end the sentence too."""


def _pattern(spaced: Iterable[str], attached: Iterable[str], tail: str) -> str:
    """A number or range with one of the units: "5 km", "5km", "5-km", "3-5 m²", "5 km/h"."""
    return (
        rf"(?<![\w.,])(-)?({NUMBER})(?: ?[-–] ?({NUMBER}))?"
        rf"(?:( ?|-)({any_of(spaced)})|({any_of(attached)}))([²³])?(?:/({any_of(_PER)}|m[²³])(²)?)?{tail}"
    )


def _plural(name: str) -> str:
    """Such as "kilometers", "miles per hour", "square feet"."""
    noun, per, rest = name.partition(" per ")
    kind, _, last = noun.rpartition(" ")
    if not last.endswith(_UNCHANGED):
        last = _IRREGULAR.get(last, f"{last}s")
    return f"{kind} {last}".strip() + per + rest


def _measure(found: re.Match[str]) -> str:
    """Such as "minus five kilometers per hour"."""
    minus, first, second, gap, symbol, attached, power, per, per_power = found.groups()
    name = UNITS[symbol] if symbol else _ATTACHED[attached]
    name = _POWERS.get(power or "", "") + name
    number = second or first
    adjective = gap == "-"
    words = f"{numbers.spoken(first)} to " if second else ""
    words += f"{numbers.spoken(number)} {name if adjective or number == '1' else _plural(name)}"
    if per:
        words += (
            f" per {_PER.get(per) or _POWERS[per[-1]] + 'meter'}{' squared' if per_power else ''}"
        )
    return (f"minus {words}" if minus else words) + full_stop_after(found)


def _degrees(found: re.Match[str]) -> str:
    """Such as "minus three degrees Celsius"."""
    minus, first, second, scale = found.groups()
    number = second or first
    words = f"{numbers.spoken(first)} to " if second else ""
    words += f"{numbers.spoken(number)} degree{'' if number == '1' else 's'}"
    words += {"C": " Celsius", "F": " Fahrenheit"}.get(scale or "", "")
    return f"minus {words}" if minus else words


def _feet_and_inches(found: re.Match[str]) -> str:
    return f"{numbers.spoken(found[1])} foot {numbers.spoken(found[2])}{full_stop_after(found)}"


RULES = (
    rule(
        rf"(?<!\w)(-)?({NUMBER})(?: ?[-–] ?({NUMBER}))? ?°(?: ?([CF])\b)?",
        _degrees,
    ),
    rule(r"(?<![\w.,])(\d{1,2}) ?ft\.? (\d{1,2}) ?in\b\.?", _feet_and_inches),
    rule(r"(?<![\w'])(\d)'(\d{1,2})(?:\"|'')?(?!\w)", _feet_and_inches),
    rule(
        _pattern(UNITS.keys() & _DOTTED.split(), _ATTACHED.keys() & _DOTTED.split(), r"\.(?!\w)"),
        _measure,
    ),
    rule(_pattern(UNITS, _ATTACHED, r"(?![\w'])"), _measure),
    rule(
        rf"(?<=\w)/({any_of(_PERIODS | _PER.keys())})\b",
        lambda found: f" per {_PER.get(found[1], found[1])} ",
    ),
)
