"""Rules for signs that are said and for punctuation: one mark of each kind, as prosody needs it."""

import re

from stepflow_tts.text.rule import dropped, rule

_SIGN_NAMES = {
    "&": "and",
    "@": "at",
    "%": "percent",
    "$": "dollars",
    "£": "pounds",
    "€": "euros",
    "¥": "yen",
    "¢": "cents",
    "°": "degrees",
    "§": "section",
    "¶": "paragraph",
    "\\": "backslash",
    "/": "slash",
    "+": "plus",
    "=": "equals",
    "#": "number",
}


def _loudest(found: re.Match[str]) -> str:
    """Such as "?" when a run of marks asks, else "!"."""
    return "?" if "?" in found[0] else "!"


RULES = (
    rule(r"(?<!\w)[:;=8][-']?[()DPpOo](?!\w)", dropped),  # emoticon
    rule(r"\b[ACDFGJQ](#)(?!\w)", lambda _: " sharp", group=1),
    rule(r"(?<!\w)#(?=[A-Za-z])", lambda _: "hashtag "),
    rule(r"(?<=\w)/(?=or\b)", lambda _: " "),
    rule(r"\.(?: ?\.)+", lambda _: "…"),
    rule(r"…{2,}", lambda _: "…"),
    rule(r"[!?]{2,}", _loudest),
    rule(r"([,;:])[,;:]+", lambda found: found[1]),
    rule(r"-{2,}|—{2,}", lambda _: "—"),
    rule(r"(?<=\s)[-–](?=\s)", lambda _: "—"),
    rule(r"(?<=\w)–(?=\w)", lambda _: "-"),
    rule(r"(?<=\w)_(?=\w)", lambda _: " "),
    rule(r"[•]", lambda _: ","),
    rule(r"[*_~^`<>|·←¡¿]", dropped),
    rule(r"[&@%$£€¥¢°§¶\\/+=#]", lambda found: f" {_SIGN_NAMES[found[0]]} "),
)
