"""Rules for Markdown, lists, tables and HTML: the marks go, the words stay."""

import re

from stepflow_tts.text import numbers
from stepflow_tts.text.rule import dropped, rule

_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|t[drh]|h[1-6])\b", re.IGNORECASE)


def _tag(found: re.Match[str]) -> str:
    """A space for a tag that ends a word, nothing for one inside it."""
    return " " if _BLOCK_TAG.match(found[0]) else ""


def _item(found: re.Match[str]) -> str:
    """Such as "two," for "2." at the start of a line."""
    return f"{numbers.cardinal(int(found[2]))},"


RULES = (
    rule(r"^ ?(?:`{3}|~{3})[\w+-]*$", dropped),  # code fence
    rule(r"^ ?[|:\-*_= ]{3,}$", dropped),  # horizontal rule, line under a table's head
    rule(r"^ ?#{1,6} ", dropped),
    rule(r"^ ?(?:> ?)+", dropped),
    rule(r"^ ?[-*+•–—] (?:\[[ xX]\] )?", dropped),
    rule(r"^ ?((\d{1,3})[.)])(?= )", _item, group=1),
    rule(r"!?\[(?=[^\[\]\n]{0,300}\]\()", dropped),  # [text](address "title")
    rule(r'\]\([^()\s]{0,2000}(?: "[^"\n]{0,200}")?\)', dropped),
    rule(r"(?<=[\w.,;!?\"')])\[\^?\d{1,3}\]", dropped),  # note mark, as in Wikipedia
    rule(r"</?[A-Za-z](?!ttps?:)[^<>\n]{0,300}>", _tag),
    rule(r"<!--[^\n]{0,300}?-->", dropped),
    rule(r"^ ?\||\| ?$", dropped),
    rule(r"\|", lambda _: ","),
)
