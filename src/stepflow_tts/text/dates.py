"""Rules for dates, years, decades and times of day."""

import functools
import re

from stepflow_tts.text import numbers
from stepflow_tts.text.rule import Rule, full_stop_after, rule

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_SHORT_MONTHS = {name[:3]: name for name in MONTHS if name != "May"} | {"Sept": "September"}
_DAYS = {
    name[:length]: name
    for name in ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    for length in (3, 4, 5)
    if name[:length] in ["Mon", "Tue", "Tues", "Wed", "Thu", "Thur", "Thurs", "Fri", "Sat", "Sun"]
}
_SHORT_MONTH = rf"(?:{'|'.join(sorted(_SHORT_MONTHS, key=len, reverse=True))})"
_MONTH = rf"(?:{'|'.join(MONTHS)}|{_SHORT_MONTH}\b\.?)"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_TH = r"(?:st|nd|rd|th)?"
_YEAR = r"(?:1[1-9]|20)\d\d"
_NO_DIGITS_BEFORE = r"(?<![\w.,$£€¥#:/])(?<!\d-)"
_NO_DIGITS_AFTER = r"(?!\w|[.,:]\d)"
_HALF_OF_DAY = r"[AaPp]\.? ?[Mm]\b\.?"


def _day(text: str) -> str:
    """Such as "fifth" for "5" and "5th"."""
    return numbers.ordinal(int(re.sub(r"\D", "", text)))


def _days(found: re.Match[str]) -> str:
    """Such as "fourth to sixth" for "4-6"."""
    return " to ".join(_day(day) for day in re.split("[-–]", found[1]))


def _day_before_month(found: re.Match[str]) -> str:
    """Such as "the fifth of" for the 5 in "5 March"; the article is not said twice."""
    article = "" if found.string[: found.start(1)].endswith("the ") else "the "
    return f"{article}{_day(found[1])} of"


def _short_month(found: re.Match[str]) -> str:
    return _SHORT_MONTHS[found[1]] + full_stop_after(found)


def _spoken_date(year: int, month: int, day: int) -> str | None:
    """Such as "March fifth, twenty twenty-four", or None for what is no date."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {numbers.ordinal(day)}, {numbers.year(year)}"


def _iso(found: re.Match[str]) -> str | None:
    return _spoken_date(int(found[1]), int(found[2]), int(found[3]))


def _full_year(text: str) -> int:
    """Two digits belong to 1950-2049."""
    value = int(text)
    return value if len(text) == 4 else value + (2000 if value < 50 else 1900)


def _month_first(found: re.Match[str]) -> str | None:
    first, second, year = int(found[1]), int(found[2]), _full_year(found[3])
    return _spoken_date(year, first, second) or _spoken_date(year, second, first)


def _day_first(found: re.Match[str]) -> str | None:
    first, second, year = int(found[1]), int(found[2]), _full_year(found[3])
    return _spoken_date(year, second, first) or _spoken_date(year, first, second)


def _day_and_month(found: re.Match[str], *, day_first: bool) -> str | None:
    """Such as "December twenty-fifth" for 12/25."""
    first, second = int(found[2]), int(found[3])
    month, day = (second, first) if day_first or first > 12 else (first, second)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {numbers.ordinal(day)}"


def _years(found: re.Match[str]) -> str:
    """Such as "nineteen ninety to nineteen ninety-five"; a short second year is a plain number."""
    second = found[2]
    after = numbers.year(int(second)) if len(second) == 4 else numbers.spoken(second)
    return f"{numbers.year(int(found[1]))} to {after}"


def _clock(hour: str, minute: str) -> str:
    """Such as "ten oh five" for 10:05."""
    said = numbers.cardinal(int(hour))
    if int(minute) == 0:
        return said
    return f"{said} {'oh ' if minute[0] == '0' else ''}{numbers.cardinal(int(minute))}"


def _time(found: re.Match[str]) -> str:
    """Such as "ten thirty", "ten o'clock", "fourteen hundred"."""
    if int(found[2]) == 0:
        unit = "o'clock" if 1 <= int(found[1]) <= 12 else "hundred"
        return f"{_clock(found[1], '00')} {unit}"
    return _clock(found[1], found[2])


def _time_with_half(found: re.Match[str]) -> str | None:
    """Such as "ten thirty P-M" for "10:30 p.m."."""
    if int(found[1]) > 23:
        return None
    half = numbers.letters(found[3].upper())
    return f"{_clock(found[1], found[2] or '00')} {half}{full_stop_after(found)}"


def _duration(found: re.Match[str]) -> str:
    """Such as "one hour two minutes and three seconds" for 1:02:03."""
    parts = []
    for text, unit in zip(found.groups(), ("hour", "minute", "second"), strict=True):
        value = int(text)
        parts.append(f"{numbers.cardinal(value)} {unit}{'' if value == 1 else 's'}")
    return f"{parts[0]} {parts[1]} and {parts[2]}"


def _era(found: re.Match[str]) -> str:
    return numbers.letters(found[1]) + full_stop_after(found, 1)


def rules(language: str) -> tuple[Rule, ...]:
    """The rules of dates and times; 3/4/2024 is in March in American, in April in British."""
    numeric = _day_first if language == "en-gb" else _month_first
    slashes = r"(?<![\w/.,-])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\w/])"
    return (
        rule(r"(?<![\w-])(\d{4})[-/](0[1-9]|1[0-2])[-/](\d\d)(?![\w-])", _iso),
        rule(slashes, numeric),
        rule(
            r"\b(?:[Oo]n|[Uu]ntil|[Ss]ince|[Dd]ue|dated) ((\d{1,2})/(\d{1,2}))(?![\w/]| of\b)",
            functools.partial(_day_and_month, day_first=language == "en-gb"),
            group=1,
        ),
        rule(r"(?<![\w/.,-])(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\w|\.\d)", _day_first),
        *_WORDED,
        *_YEARS,
        *_TIMES,
    )


_NAMES = {**_SHORT_MONTHS, **_DAYS}
_NAME = "|".join(sorted(_NAMES, key=len, reverse=True))

_WORDED = (
    rule(
        rf"\b({_NAME})\.? ?[-–] ?({_NAME})\b\.?",
        lambda found: f"{_NAMES[found[1]]} to {_NAMES[found[2]]}{full_stop_after(found)}",
    ),
    rule(
        rf"\b({'|'.join(sorted(_DAYS, key=len, reverse=True))})\b\.?(?=,? (?:{_MONTH}|\d))",
        lambda found: _DAYS[found[1]],
    ),
    rule(
        rf"\b{_MONTH} ({_DAY}{_TH} ?[-–] ?{_DAY}{_TH}){_NO_DIGITS_AFTER}",
        _days,
        group=1,
    ),
    rule(
        rf"\b{_MONTH} ({_DAY}{_TH})(?!\w|[.:]\d|,\d| ?%| [ap]\.?m\b)",
        lambda found: _day(found[1]),
        group=1,
    ),
    rule(rf"{_NO_DIGITS_BEFORE}({_DAY}{_TH})(?= {_MONTH}(?!\w))", _day_before_month, group=1),
    rule(rf"\b({_SHORT_MONTH})\b\.?(?= \d)", _short_month),
    rule(rf"(?:(?<=\d )|(?<=\d(?:st|nd|rd|th) )|(?<= of ))({_SHORT_MONTH})\b\.?", _short_month),
    rule(rf"\b({_SHORT_MONTH})\.", _short_month),
)

_YEARS = (
    rule(
        r"(?<=\d )((?:BCE|BC|AD|CE)\b|B\.C\.(?:E\.)?|A\.D\.|C\.E\.)",
        _era,
        group=1,
    ),
    rule(r"\b(AD|A\.D\.)(?= \d)", lambda found: numbers.letters(found[1]), group=1),
    rule(
        r"(?<![\w.,])((?:1\d|20)\d0)'?s\b",
        lambda found: numbers.decade(int(found[1])),
    ),
    rule(r"(?<!\w)'([1-9]0)'?s\b", lambda found: numbers.decade(int(found[1]))),
    rule(
        r"\b(?:[Tt]he|[Hh]is|[Hh]er|[Mm]y|[Tt]heir|our|your|early|mid|late|[Ii]n)[ -](([2-9]0)'?s)\b",
        lambda found: numbers.decade(int(found[2])),
        group=1,
    ),
    rule(r"(?<!\w)'(\d\d)\b", lambda found: numbers.spoken(found[1])),
    rule(
        rf"{_NO_DIGITS_BEFORE}({_YEAR}) ?[-–] ?((?:1[1-9]|20)\d\d|\d\d)(?![\w-]|[.,]\d)",
        _years,
    ),
    rule(
        r"\b(?:[Ii]n|of|[Ss]ince|[Bb]y|[Ff]rom|[Uu]ntil|year|[Aa]round|circa|AD) (10\d\d)"
        rf"{_NO_DIGITS_AFTER}",
        lambda found: numbers.year(int(found[1])),
        group=1,
    ),
)

_TIMES = (
    rule(
        r"(?<=[\dmM.])( ?[-–] ?)(?=\d{1,2}(?:[:.]\d\d)? ?[AaPp]\.?[Mm]\b)",
        lambda _: " to ",
        group=1,
    ),
    rule(r"(?<=:\d\d)( ?[-–] ?)(?=\d{1,2}:\d\d)", lambda _: " to ", group=1),
    rule(
        rf"(?<![\w:.,$£€])(\d{{1,2}})(?:[:.]([0-5]\d))? ?({_HALF_OF_DAY})",
        _time_with_half,
    ),
    rule(r"(?<![\w:.])(\d{1,3}):([0-5]\d):([0-5]\d)(?![\w:])", _duration),
    rule(r"(?<![\w:.,])([01]?\d|2[0-3]):([0-5]\d)(?![\w:]|\.\d)", _time),
)
