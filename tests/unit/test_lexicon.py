"""A user's own words: where they are found, what is said, and which entries are refused."""

from pathlib import Path

import pytest

from stepflow_tts.errors import OptionError
from stepflow_tts.text.lexicon import Lexicon
from stepflow_tts.text.normalize import pieces
from stepflow_tts.text.phonemize import phonemize


def said(lexicon: Lexicon, text: str) -> str:
    found = pieces(text, given=lexicon.find(text))
    return phonemize("".join(piece.spoken for piece in found), "en-us")


def found(words: list[str], text: str) -> list[str]:
    return [text[g.start : g.end] for g in Lexicon(dict.fromkeys(words, "x")).find(text)]


def test_ipa_stands_among_other_words_and_their_marks() -> None:
    lexicon = Lexicon({"Nguyen": "/nəwˈɪn/"})
    assert said(lexicon, "Hello Nguyen, how are you?") == "həlˈoʊ nəwˈɪn, hˈaʊ ɑːɹ juː?"
    assert said(lexicon, "“Nguyen!” Nguyen-like") == '"nəwˈɪn!" nəwˈɪnlˈaɪk.'
    assert said(lexicon, "Mr. Nguyen (Nguyen)") == "mˈɪstɚ nəwˈɪn, nəwˈɪn."


def test_a_respelling_is_read_like_any_text() -> None:
    assert said(Lexicon({"nginx": "engine 10"}), "Use nginx.") == phonemize(
        "Use engine ten.", "en-us"
    )


@pytest.mark.parametrize(
    ("ipa", "ending"),
    [("bˈɑs", "ᵻz"), ("mˈɑɹtʃ", "ᵻz"), ("lˈi", "z"), ("bˈɑb", "z"), ("kˈæt", "s")],
)
def test_the_possessive_has_its_sound(ipa: str, ending: str) -> None:
    assert said(Lexicon({"Bob": f"/{ipa}/"}), "Bob’s") == f"{ipa}{ending}."


def test_small_letters_match_any_case_and_capitals_only_themselves() -> None:
    assert found(["us"], "us US Us") == ["us", "US", "Us"]
    assert found(["US"], "us US Us") == ["US"]


def test_only_whole_words_and_the_longest() -> None:
    assert found(["art"], "art party arts art's art-work art.") == ["art"] * 4
    assert found(["new", "New York", "York"], "New York, new York") == ["New York", "new", "York"]
    assert found(["New York"], "New Yorkers of New York") == ["New York"]
    assert found(["C++", "C", ".NET"], "C++ and C and .NET") == ["C++", "C", ".NET"]
    assert found(["don't"], "don’t") == ["don’t"]


def test_no_rule_touches_a_given_word() -> None:
    lexicon = Lexicon({"Dr. Who": "doctor who", "747": "jumbo", "www.x.org": "the site"})
    assert said(lexicon, "Dr. Who at www.x.org on a 747.") == phonemize(
        "doctor who at the site on a jumbo.", "en-us"
    )


@pytest.mark.parametrize(
    ("written", "ipa"),
    [
        ("təˈmeɪtoʊ", "təmˈeɪtoʊ"),  # stress stands before the vowel
        ("ˈstɹaɪk", "stɹˈaɪk"),
        ("got", "ɡot"),
        ("ri", "ɹi"),
        ("t͡ʃi.ni", "tʃini"),
        (" nuː  jˈɔːk ", "nuː jˈɔːk"),
    ],
)
def test_common_ways_to_write_ipa(written: str, ipa: str) -> None:
    assert said(Lexicon({"word": f"/{written}/"}), "word") == f"{ipa}."


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_bytes("\ufeff# names\r\n\r\nNguyen\t/wˈɪn/\r\nnginx\tengine x\r\n".encode())
    lexicon = Lexicon(path)
    assert len(lexicon) == 2
    assert said(lexicon, "Nguyen, Nginx") == "wˈɪn, ˈɛndʒɪn ˈɛks."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nginx engine x", "has 0 tabs"),
        ("a\tb\tc", "has 2 tabs"),
        ("word\t", r"''.* is empty"),
        ("\tsaid", "no word to look for"),
        ("word\t/wˈɪn", "ends with one too"),
        ("word\t//", "has 0 IPA symbols"),
        ("word\t/wˈ4n/", r"'4' \(U\+0034\), which is no IPA symbol"),
        ("word\t/w,n/", r"',' \(U\+002C\)"),
        ("word\t/ˈˌ/", "IPA symbols"),
        ("word\t" + "a" * 201, "201 characters"),
        ("a" * 201 + "\tword", "1 to 200 characters"),
        ("word\t!!", "only punctuation"),
        ("first\tagain", "is there already, in .*words.tsv, line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "words.tsv"
    path.write_text(f"first\tone\n\n{line}\n", encoding="utf-8")
    with pytest.raises(OptionError, match=rf"words\.tsv, line 3: .*{message}"):
        Lexicon(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Cannot read the lexicon"):
        Lexicon(tmp_path / "missing")
    with pytest.raises(OptionError, match="Cannot read the lexicon"):
        Lexicon(tmp_path)
    path = tmp_path / "latin.tsv"
    path.write_bytes(b"a\tb\ncaf\xe9\tx\n")
    with pytest.raises(OptionError, match="line 2: byte 0xe9 is not UTF-8"):
        Lexicon(path)


@pytest.mark.parametrize("source", [5, b"x", {"a": 3}, {3: "a"}, {"": "x"}, {"a": ""}, {"a": "//"}])
def test_other_sources_are_refused(source: object) -> None:
    with pytest.raises(OptionError, match="exicon"):
        Lexicon(source)  # type: ignore[arg-type]


def test_only_symbols_of_the_checkpoint() -> None:
    with pytest.raises(OptionError, match=r"'ɪ' .*Known: n$"):
        Lexicon({"a": "/nɪ/"}, ("<bos>", "<eos>", " ", "n"))
