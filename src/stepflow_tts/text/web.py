"""Rules for addresses of the net, and for telephone numbers, versions and other digit groups."""

import re

from stepflow_tts.text import numbers
from stepflow_tts.text.rule import rule

_NAMES = {
    ".": "dot",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    ":": "colon",
    "?": "question mark",
    "=": "equals",
    "&": "and",
    "#": "hash",
    "%": "percent",
    "+": "plus",
    "~": "tilde",
    "@": "at",
    "!": "exclamation mark",
    ",": "comma",
    ";": "semicolon",
    "*": "star",
}
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_WORDS_OF_TWO = "co me my so to be by go we us no at in is it on or up do an as if of"
_DOMAINS = "com|org|net|edu|gov|mil|int|io|ai|app|dev|info|biz|tv|co|uk|us|ca|au|nz|ie|de|fr|es|nl|ch|eu|jp"
_EXTENSIONS = (
    "py|js|ts|jsx|tsx|c|cpp|java|rs|go|sh|md|txt|pdf|csv|tsv|json|ya?ml|toml|xml|html?|css|ini|log|"
    "docx?|xlsx?|pptx?|zip|tar|gz|exe|dll|jpe?g|png|gif|svg|webp|mp3|mp4|wav|flac|ogg|mov|avi"
)
_END = r"[^\s<>\"'.,;:!?)\]*_]"  # an address does not end in a mark of the sentence
_REST = rf"(?:[/?#][^\s<>\"]{{0,2000}}(?<={_END}))?/?"


def _word(letters: str) -> str:
    """A part of an address: spelled when it has no vowel or two letters that are no word."""
    if letters.lower() in _WORDS_OF_TWO.split():
        return letters
    if len(letters) == 2 or (1 < len(letters) < 5 and not re.search("[aeiouyAEIOUY]", letters)):
        return numbers.letters(letters.upper())
    return letters if len(letters) > 1 else numbers.letters(letters)


def _say(address: str) -> str:
    """An address in words."""
    said = []
    for token in _TOKEN.findall(address):
        if token.isdecimal():
            said.append(numbers.spoken(token) if len(token) < 4 else numbers.digits(token))
        else:
            said.append(_NAMES.get(token) or (_word(token) if token.isalpha() else ""))
    return " ".join(filter(None, said))


def _url(found: re.Match[str]) -> str:
    """An address without its scheme and without a slash at its end."""
    return _say(re.sub(r"^<?(?:\w+://)?", "", found[0]).rstrip("/>"))


def _ip(found: re.Match[str]) -> str:
    """Each byte digit by digit; a port as a number."""
    address, _, port = found[0].partition(":")
    said = " dot ".join(numbers.digits(part) for part in address.split("."))
    return f"{said} colon {numbers.digits(port)}" if port else said


def _version(found: re.Match[str]) -> str:
    """Such as "version two point zero" for v2.0, without "version" after that word."""
    said = " point ".join(numbers.spoken(part) for part in found[2].split("."))
    return (
        f"version {said}"
        if found[1] and "ersion" not in found.string[found.start() - 8 : found.start()]
        else said
    )


def _groups(found: re.Match[str]) -> str:
    """Groups of digits, digit by digit, with a pause between groups."""
    said = ", ".join(numbers.digits(group) for group in re.findall(r"\d+", found[0]))
    return f"plus {said}" if found[0][0] == "+" else said


ADDRESS_RULES = (
    rule(
        r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
        lambda found: _say(found[0]),
    ),
    rule(rf"<?\b(?:https?|ftp)://[^\s<>\"/?#]{{1,255}}(?<={_END}){_REST}>?", _url),
    rule(rf"(?<![\w.@-])www\.[^\s<>\"/?#]{{1,255}}(?<={_END}){_REST}", _url),
    rule(
        rf"(?<![\w.@/-])(?:[A-Za-z\d-]{{1,63}}\.){{1,6}}(?:{_DOMAINS})(?![\w-]|\.\w){_REST}", _url
    ),
    rule(
        rf"(?<![\w.@/-])[\w-]{{1,64}}\.(?:{_EXTENSIONS})(?![\w-]|\.\w)",
        lambda found: _say(found[0].replace("_", " ")),
    ),
    rule(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?!\w|\.\d)", _ip),
)

CODE_RULES = (
    rule(
        r"(?<![\w.+-])(?:\+?1[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-]|\.\d)",
        _groups,
    ),
    rule(r"(?<!\w)\+\d{1,3}(?:[ .-]\(?\d{1,5}\)?){2,6}(?!\w)", _groups),
    rule(r"(?<!\w)\+\d{7,15}(?!\w)", _groups),
    rule(r"(?<![\w.-])0\d{2,4} \d{3,4} \d{3,4}(?!\w)", _groups),
    rule(r"(?<![\w.,-])\d{3}-\d{4}(?![\w-]|\.\d)", _groups),
    rule(
        r"(?:[Cc]all|[Dd]ial|CALL) (911|999|112|988|411|311|101|111)(?!\w|[.,-]\d)",
        lambda m: numbers.digits(m[1]),
        group=1,
    ),
    rule(r"(?<![\w.-])\d{1,6}(?:-\d{1,6}){2,6}(?![\w-])", _groups),
    rule(r"(?<![\w.])(v)?(\d+(?:\.\d+){2,5})(?!\w|\.\d)", _version),
    rule(r"(?<![\w.])(v)(\d+(?:\.\d+)?)(?!\w|\.\d)", _version),
)
