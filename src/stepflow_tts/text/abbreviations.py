"""Rules for titles, streets, abbreviations and initials, and whether their period ends a sentence."""

import re
from collections.abc import Callable

from stepflow_tts.text import numbers
from stepflow_tts.text.rule import any_of, full_stop_after, rule

_TITLES = {  # before a name
    "Mr": "Mister",
    "Mrs": "Misses",
    "Ms": "Miz",
    "Mx": "Mix",
    "Dr": "Doctor",
    "Prof": "Professor",
    "Gen": "General",
    "Col": "Colonel",
    "Capt": "Captain",
    "Lt": "Lieutenant",
    "Sgt": "Sergeant",
    "Maj": "Major",
    "Cmdr": "Commander",
    "Adm": "Admiral",
    "Rev": "Reverend",
    "Hon": "Honorable",
    "Gov": "Governor",
    "Sen": "Senator",
    "Rep": "Representative",
    "Pres": "President",
    "Supt": "Superintendent",
    "Messrs": "Messers",
    "St": "Saint",
    "Ste": "Sainte",
    "Mt": "Mount",
    "Ft": "Fort",
}
_PLAIN_TITLES = "Mr|Mrs|Ms|Mx|Dr|St|Messrs|Prof"  # also written without a period
_STREETS = {
    "St": "Street",
    "Dr": "Drive",
    "Ave": "Avenue",
    "Rd": "Road",
    "Blvd": "Boulevard",
    "Ln": "Lane",
    "Ct": "Court",
    "Hwy": "Highway",
    "Pkwy": "Parkway",
    "Sq": "Square",
    "Pl": "Place",
}
_DOTTED = {
    "approx": "approximately",
    "appt": "appointment",
    "dept": "department",
    "Dept": "Department",
    "Inc": "Incorporated",
    "Ltd": "Limited",
    "Co": "Company",
    "Corp": "Corporation",
    "Bros": "Brothers",
    "Assn": "Association",
    "Univ": "University",
    "Jr": "Junior",
    "Sr": "Senior",
    "Esq": "Esquire",
    "et al": "et al",
    "cf": "compare",
    "viz": "namely",
    "min": "minimum",
    "max": "maximum",
    "avg": "average",
    "misc": "miscellaneous",
    "govt": "government",
    "tel": "telephone",
    "Tel": "Telephone",
    "Mon": "Monday",
    "Tues": "Tuesday",
    "Thurs": "Thursday",
    "Fri": "Friday",
}
_UNDOTTED = {
    "vs": "versus",
    "etc": "et cetera",
    "Jr": "Junior",
    "Sr": "Senior",
    "aka": "also known as",
    "w/o": "without",
    "w/": "with ",
    "b/c": "because",
}
_BEFORE_NUMBER = {
    "no": "number",
    "nos": "numbers",
    "fig": "figure",
    "figs": "figures",
    "eq": "equation",
    "p": "page",
    "pp": "pages",
    "vol": "volume",
    "vols": "volumes",
    "ch": "chapter",
    "sec": "section",
    "ext": "extension",
    "ca": "circa",
    "c": "circa",
    "est": "established",
    "art": "article",
}
_JOINED = frozenset(
    ["US", "USA", "UK", "UN", "EU", "DC", "LA", "UAE", "USSR", "FBI", "CIA", "NASA", "NATO"]
)
"""Initials that espeak knows by heart without their periods."""


_NAME_NEXT = re.compile(r" [A-Z][a-z]")


def _word_of(table: dict[str, str]) -> Callable[[re.Match[str]], str]:
    """Says the word for an abbreviation, and the full stop of its sentence."""
    return lambda found: table[found[1]] + full_stop_after(found)


def _street(found: re.Match[str]) -> str | None:
    """Such as "Street" for the St. of an address; None before a name, as in "In St. Louis"."""
    stop = full_stop_after(found, 1)
    if not stop and _NAME_NEXT.match(found.string, found.end(1)):
        return None
    return _STREETS[found[1].rstrip(".")] + stop


def _before_number(found: re.Match[str]) -> str:
    """Such as "figure" for "fig." and "Figure" for "Fig."; No. 5 is "number five" in either case."""
    word = _BEFORE_NUMBER[found[1].lower()]
    capital = found[1][0].isupper() and not word.startswith("number")
    return word.capitalize() if capital else word


def _initials(found: re.Match[str]) -> str:
    """Such as "USA" for U.S.A., "J-K" for J.K., with the full stop of the sentence."""
    said = found[0].replace(".", "").upper()
    return (said if said in _JOINED else numbers.letters(said)) + full_stop_after(found)


def _initial(found: re.Match[str]) -> str | None:
    """The letter of "John F. Kennedy" without its period, unless that ends a sentence."""
    return None if full_stop_after(found) else numbers.letters(found[0])


RULES = (
    rule(
        rf"\b(?:[A-Z][a-z'-]{{1,30}}|\d(?:st|nd|rd|th)) ((?:{any_of(_STREETS)})\b\.?)(?![\w'])",
        _street,
        group=1,
    ),
    rule(rf"\b({_PLAIN_TITLES})\b\.?(?= ?[\"']?[A-Z])", lambda found: _TITLES[found[1]]),
    rule(rf"\b({any_of(_TITLES)})\.(?= ?[\"']?[A-Z])", lambda found: _TITLES[found[1]]),
    rule(r"\b[Ee]\. ?g\.", lambda found: "For example" if found[0][0] == "E" else "for example"),
    rule(r"\b[Ii]\. ?e\.", lambda found: "That is" if found[0][0] == "I" else "that is"),
    rule(r"\bPh\. ?D\b\.?", lambda found: "P-H-D" + full_stop_after(found)),
    rule(
        rf"\b({any_of(_BEFORE_NUMBER)})\. ?(?=\d)".replace("(", "((?i:", 1).replace(")", "))", 1),
        _before_number,
    ),
    rule(rf"\b({any_of(_DOTTED)})\.(?!\w)", _word_of(_DOTTED)),
    rule(rf"(?<![\w/])({any_of(_UNDOTTED)})(?:(?<=/)|\b)\.?(?![\w/])", _word_of(_UNDOTTED)),
    rule(r"(?<![\w.])(?:[A-Za-z]\.){2,8}(?!\w)", _initials),
    rule(r"(?<![\w.'-])[A-Z]\.(?= (?:[A-Z]\.|[A-HJ-Z]\w))(?<!I\.)", _initial),
)
