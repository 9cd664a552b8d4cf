"""SSML: the sections of a document, and every way to be refused with its line."""

import pytest

from stepflow_tts.errors import TextError
from stepflow_tts.text.ssml import Section, read_ssml
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS


def read(inner: str) -> list[Section]:
    return read_ssml(f"<speak>{inner}</speak>", "en-us", DEFAULT_SYMBOLS)


def texts(inner: str) -> list[str]:
    return [section.text for section in read(inner)]


def test_a_whole_document() -> None:
    sections = read_ssml(
        """<?xml version="1.0" encoding="UTF-8"?>
        <!-- a comment -->
        <speak version="1.1" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en-US">
          <p><s>Tom &amp; Jerry, at
             last.</s> <s>Second</s></p>
          <p><![CDATA[<third>]]></p>
        </speak>""",
        "en-us",
        DEFAULT_SYMBOLS,
    )
    assert [(s.text, s.pause, s.goes_on) for s in sections] == [
        ("Tom & Jerry, at last.", "sentence", False),
        ("Second", "paragraph", False),
        ("<third>", "paragraph", False),
    ]


def test_breaks_divide_and_add_up() -> None:
    sections = read('<break time="250ms"/>One <break time="1s"/><break time=".5s"/>two')
    assert [(s.text, s.break_seconds, s.before_seconds) for s in sections] == [
        ("One", 1.5, 0.25),
        ("two", None, 0.0),
    ]
    assert [s.goes_on for s in sections] == [True, False]


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ("", 0.3),
        ('strength="none"', 0.0),
        ('strength="weak"', 0.15),
        ('strength="x-strong"', 0.7),
        ('time="10s"', 10.0),
        ('time=" 20ms "', 0.02),
        ('strength="weak" time="2s"', 2.0),
    ],
)
def test_lengths_of_breaks(attributes: str, seconds: float) -> None:
    assert read(f"<s>One</s><break {attributes}/>two")[0].break_seconds == pytest.approx(seconds)


def test_rates_multiply_and_end() -> None:
    inner = '<prosody rate="50%">a <prosody rate="fast">b</prosody> c</prosody> d'
    assert [(s.text, s.rate) for s in read(inner)] == [
        ("a", 0.5),
        ("b", 0.625),
        ("c", 0.5),
        ("d", 1.0),
    ]


def test_marks_after_an_element_end_what_it_says() -> None:
    inner = 'He is <prosody rate="slow">slow</prosody>. <sub alias="good">OK</sub> then'
    assert texts(inner) == ["He is", "slow.", "OK then"]
    given = read(inner)[2].given[0]
    assert (given.start, given.end, given.spoken) == (0, 2, "good")
    assert texts('"<prosody rate="slow">Slow</prosody>"') == ['Slow"']


def test_a_mark_that_is_given_is_no_end() -> None:
    first, second = read('<s>One</s> <sub alias="dot">.</sub> net')
    assert (first.text, second.text) == ("One", ". net")
    assert (second.given[0].start, second.given[0].end) == (0, 1)


def test_given_words_keep_their_place() -> None:
    section = read('A <sub alias="World Wide Web"> W3 </sub>page <phoneme ph="ˈtom">t</phoneme>!')[
        0
    ]
    assert [section.text[g.start : g.end] for g in section.given] == ["W3", "t"]
    assert section.text == "A W3 page t!"
    assert section.given[0].spoken == "World Wide Web"
    assert [ord(c) - 0x20000 for c in section.given[1].spoken] == [ord(c) for c in "tˈom"]


def test_white_space_is_one_space() -> None:
    assert texts("  a\n\n b<sub alias='c'>\tc </sub> d\r\n") == ["a b c d"]


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("a\n<audio src='x'/>", "line 2: <audio> is not supported. Known: speak, p, s, break"),
        ("\n\n<p>a", "line 3: mismatched tag; <p> of line 3 is open"),
        ("a</p>", "line 1: mismatched tag; <speak> of line 1 is open"),
        ("<s><p>a</p></s>", "<p> cannot stand inside <s>"),
        ("<speak>a</speak>", "<speak> cannot stand inside <speak>"),
        ("<sub alias='b'><break/></sub>", "<break> cannot stand inside <sub>"),
        ("<p id='3'>a</p>", "<p> has no attribute 'id' here. Known: none"),
        ("<prosody pitch='high'>a</prosody>", "no attribute 'pitch' here. Known: rate"),
        ("<prosody>a</prosody>", "<prosody> needs the attribute rate"),
        ("<prosody rate='5'>a</prosody>", "the rate '5'; it must be 50% to 200%"),
        ("<prosody rate='201%'>a</prosody>", "the rate '201%'"),
        ("<prosody rate='nan%'>a</prosody>", "the rate 'nan%'"),
        ("<break time='10.1s'/>a", "the time '10.1s'; write it as"),
        ("<break time='-1s'/>a", "the time '-1s'"),
        ("<break time='1'/>a", "the time '1'"),
        ("<break strength='big'/>a", "the strength 'big'. Known: none, x-weak"),
        ("<sub>a</sub>", "<sub> needs the attribute alias"),
        ("<sub alias=''>a</sub>", "<sub>: The text '' is empty"),
        ("<sub alias='b'> </sub>", "<sub> is empty"),
        ("<phoneme>a</phoneme>", "<phoneme> needs the attribute ph"),
        ("<phoneme ph='a4'>a</phoneme>", r"'4' (U+0034), which is no IPA symbol"),
        ("<phoneme ph='a' alphabet='x-sampa'>a</phoneme>", "alphabet 'x-sampa' is not known"),
        ("a & b", "not well-formed"),
        ("a &eacute; b", "undefined entity"),
        ("a <?php x?>", "<?php?> is not read"),
        ("a \x00", "not well-formed"),
        (" \n ", "holds no words"),
        ("<break/>...", "holds no words"),
        ("a \ud800", "half a surrogate pair"),
    ],
)
def test_anything_else_is_refused(inner: str, message: str) -> None:
    with pytest.raises(TextError) as caught:
        read(inner)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "line 1: no element found"),
        ("Hello.", "line 1: syntax error. Close every tag"),
        ("<p>Hello.</p>", "<p> cannot stand as the root; that is <speak>"),
        ("<speak>a</speak>b", "line 1: "),
        ("<speak xml:lang='de'>a</speak>", "xml:lang: The language 'de' is not spoken"),
        ("<speak xml:lang='en-GB'>a</speak>", "xml:lang is 'en-GB', but 'en-us' is spoken"),
        (
            '<!DOCTYPE speak [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><speak>&b;</speak>',
            "<!DOCTYPE speak> is not read",
        ),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><speak>a</speak>', "<!DOCTYPE s> is not read"),
    ],
)
def test_documents_that_are_no_ssml(document: str, message: str) -> None:
    with pytest.raises(TextError) as caught:
        read_ssml(document, "en-us", DEFAULT_SYMBOLS)
    assert message in str(caught.value)


def test_only_a_string_is_ssml() -> None:
    with pytest.raises(TextError, match="not bytes"):
        read_ssml(b"<speak>a</speak>", "en-us", DEFAULT_SYMBOLS)  # type: ignore[arg-type]
