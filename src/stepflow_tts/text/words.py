"""Rules for Roman numerals, acronyms and words that hold digits."""

import re

from stepflow_tts.text import numbers
from stepflow_tts.text.rule import rule

_SPELLED = (
    "VIP|EV|AWS|AR|ASR|CLI|IDE|NYC|WER|AKA|EPA|ETA|VAT|SEO|ROI|UPS|USPS|TSA|DEA|ECG|IQ|ERP|LED|CMYK|"
    "EOD|AMA|UFC|EDM|EP|ETF|IPO|ICU|ER|IBS|FAQ"
)
"""Acronyms that are spelled; espeak would read most of them as words."""

_REGNAL = (
    "Henry|Louis|Elizabeth|George|Edward|Charles|James|William|Richard|Philip|Felipe|Francis|"
    "Frederick|Friedrich|Wilhelm|Catherine|Peter|Alexander|Nicholas|Paul|John|Pius|Benedict|Leo|"
    "Gregory|Innocent|Clement|Urban|Boniface|Julius|Sixtus|Napoleon|Ferdinand|Leopold|Otto|Rameses|"
    "Ramesses|Ramses|Ptolemy|Harald|Haakon|Olav|Gustav|Christian|Ivan|Mary|Baldwin|Henri|Carlos|"
    "Alfonso|Thutmose|Amenhotep|Darius|Xerxes|Artaxerxes|Sargon|Robert|David|Victor|Emmanuel|Umberto|"
    "Juan|Margaret|Margrethe|Anne|Isabella|Constantine|Theodosius|Justinian|Mehmed|Murad|Suleiman"
)
_NUMBERED = (
    "Chapter|Part|Book|Volume|Vol\\.|Act|Scene|Section|Article|Phase|Type|Stage|Level|Figure|Appendix|"
    "Title|War|Bowl|Class|Schedule|Canto|Psalm|Grade|Round|Episode|Season|Mark|Tier|Category|Symphony|"
    "Amendment|Unit|Step|Table|Theorem|Group|Factor|Apollo|Rocky|Fantasy"
)
_ROMAN = r"(?:[IVXLC]{2,8}|[IVX](?= (?:of|and|in|to)\b|'s\b|[,;:.!?)\"]|$))"
_RUN = re.compile(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")


def _regnal(found: re.Match[str]) -> str | None:
    """Such as "the eighth" after Henry."""
    value = numbers.roman(found[1])
    return f"the {numbers.ordinal(value)}" if value else None


def _numbered(found: re.Match[str]) -> str | None:
    """Such as "four" after Chapter."""
    value = numbers.roman(found[1])
    return numbers.cardinal(value) if value else None


def _spelled(found: re.Match[str]) -> str | None:
    """Such as "E-V" for EV; "E-V's" for EVs, since espeak spells "Vs"; None amid capitals."""
    around = found.string[max(0, found.start() - 40) : found.end() + 40]
    if around.isupper():
        return None
    return numbers.letters(found[1]) + ("'s" if found[2] else "")


def _with_digits(found: re.Match[str]) -> str:
    """Such as "M-P three" for MP3, "H two O", "COVID nineteen"."""
    said = ""
    for run in _RUN.findall(found[0]):
        if run.isdecimal():
            word = numbers.digits(run) if len(run) > 4 else numbers.spoken(run)
        elif len(run) == 1 or (run.isupper() and len(run) < 4):
            word = numbers.letters(run)
        else:
            word = run
        said += word if not said or said.endswith("-") else f" {word}"
    return said


RULES = (
    rule(rf"\b(?:{_REGNAL}) ({_ROMAN})(?!\w)", _regnal, group=1),
    rule(rf"\b(?:{_NUMBERED}) ({_ROMAN})(?!\w)", _numbered, group=1),
    rule(
        r"\b[A-Z][a-z]{1,30} (I{2,3}|I[VX]|VI{1,3}|XI{1,3}|XI?V|XVI{1,3}|XI?X)(?!\w)", _numbered, 1
    ),
    rule(rf"\b({_SPELLED})('?s)?(?!\w)", _spelled),
    rule(
        r"\b[A-Za-z][a-z]{1,20} (A)(?![\w'-]|\.\w| [A-Z])", lambda _: "A-", group=1
    ),  # no article is a capital
    rule(r"\bthe (WHO)('s)?(?!\w)", _spelled, group=1),
    rule(
        r"\b([A-Z]{1,3})&([A-Z]{1,3})\b",
        lambda found: f"{numbers.letters(found[1])} and {numbers.letters(found[2])}",
    ),
    rule(r"(?<![\w.])[A-Za-z]{1,20}-?\d{1,8}(?![\w]|[.,]\d)", _with_digits),
    rule(r"(?<!\w)(?=[A-Za-z]{0,20}\d)(?=\d{0,20}[A-Za-z])[A-Za-z\d]{2,20}(?!\w)", _with_digits),
)
