"""Rules for amounts of money."""

import re

from stepflow_tts.text import numbers
from stepflow_tts.text.numbers import NUMBER
from stepflow_tts.text.rule import rule

_CURRENCIES = {  # singular, plural, hundredth, hundredths
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "NZ$": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₿": ("bitcoin", "bitcoins", "cent", "cents"),
}
_CODES = {
    "USD": _CURRENCIES["US$"],
    "EUR": _CURRENCIES["€"],
    "GBP": _CURRENCIES["£"],
    "JPY": _CURRENCIES["¥"],
    "INR": _CURRENCIES["₹"],
    "CAD": _CURRENCIES["C$"],
    "AUD": _CURRENCIES["A$"],
    "NZD": _CURRENCIES["NZ$"],
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "CNY": ("yuan", "yuan", "fen", "fen"),
}
_NAMES = _CURRENCIES | _CODES
_MAGNITUDES = {
    **dict.fromkeys(("k", "K"), "thousand"),
    **dict.fromkeys(("m", "M", "mn", "mm", "MM"), "million"),
    **dict.fromkeys(("b", "B", "bn", "Bn"), "billion"),
    **dict.fromkeys(("t", "T", "tn"), "trillion"),
}
_WORDS = "hundred|thousand|million|billion|trillion"
_MAGNITUDE = rf"(?:({'|'.join(sorted(_MAGNITUDES, key=len, reverse=True))}|[ -](?:{_WORDS}))\b)?"
_SIGN = r"(?:(?:US|A|C|NZ|HK)?\$|[£€¥₹₩₽₺₿])"
_CODE = "|".join(_CODES)


def _amount(sign: str, number: str, magnitude: str | None) -> str:
    """Such as "five point two million dollars", "three pounds and fifty pence"."""
    singular, plural, hundredth, hundredths = _NAMES[sign]
    if magnitude:
        return f"{numbers.spoken(number)} {_size(magnitude)} {plural}"
    whole, _, decimals = number.partition(".")
    if len(decimals) != 2:
        return f"{numbers.spoken(number)} {singular if number == '1' else plural}"
    units = f"{numbers.spoken(whole)} {singular if whole == '1' else plural}"
    cents = f"{numbers.cardinal(int(decimals))} {hundredth if decimals == '01' else hundredths}"
    if int(decimals) == 0:
        return units
    return cents if whole in {"", "0"} else f"{units} and {cents}"


def _size(magnitude: str) -> str:
    return _MAGNITUDES.get(magnitude) or magnitude.lstrip(" -")


def _money(found: re.Match[str]) -> str:
    """An amount or a range of amounts with the sign before it."""
    minus, sign, number, second, magnitude, noun = found.groups()
    said = _amount(sign.strip(), second or number, magnitude)
    if second:
        said = f"{numbers.spoken(number)} to {said}"
    elif noun:
        kind = f" {_size(magnitude)}" if magnitude else ""
        said = f"{numbers.spoken(number)}{kind} {_NAMES[sign.strip()][0]}"
    return f"minus {said}" if minus else said


RULES = (
    rule(
        rf"(?<!\w)(-)?({_SIGN}|(?:{_CODE}) )({NUMBER})(?: ?[-–] ?{_SIGN}?({NUMBER}))?{_MAGNITUDE}"
        r"(?!\d|\.\d)(?=([ -](?:bill|note|coin)\b)?)",
        _money,
    ),
    rule(
        rf"(?<![\w.,])({NUMBER}){_MAGNITUDE} ?({_SIGN}|(?:{_CODE})\b)(?!\d)",
        lambda found: _amount(found[3], found[1], found[2]),
    ),
    rule(
        r"(?<![\w.,])(\d{1,2})p\b",
        lambda found: f"{numbers.spoken(found[1])} {'penny' if found[1] == '1' else 'pence'}",
    ),
)
