"""Phonemes: equal to those the training corpora were made with, from any thread."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepflow_tts.errors import OptionError
from stepflow_tts.text.phonemize import phonemize, resolve_language
from stepflow_tts.text.tokenizer import Tokenizer

US = {
    "Who would replace this kind of laptop near the museum?": (
        "hˌuː wʊd ɹᵻplˈeɪs ðɪs kˈaɪnd ʌv lˈæptɑːp nˌɪɹ ðə mjuːzˈiəm?"
    ),
    "A. B., your case.": "ˈeɪ. bˈiː., jʊɹ kˈeɪs.",
    "These packages were consigned to Messrs. Shroeder": (
        "ðiːz pˈækɪdʒᵻz wɜː kənsˈaɪnd tə mˈɛsɹz. ʃɹˈoʊdɚ"
    ),
    "a button": "ɐ bˈʌʔn̩",
}
GB = {
    "Had I told thee, rejoined the other, what I was bent on doing.": (
        "hæd aɪ tˈəʊld ðˈiː, ɹɪdʒˈɔɪnd ðɪ ˈʌðɐ, wˌɒt aɪ wɒz bˈɛnt ˌɒn dˈuːɪŋ."
    ),
    "Sargon I., who": "sˈɑːɡən ˈaɪ., hˈuː",
}


@pytest.mark.parametrize(("text", "expected"), US.items())
def test_american_phonemes(text: str, expected: str) -> None:
    assert phonemize(text, "en-us") == expected


@pytest.mark.parametrize(("text", "expected"), GB.items())
def test_british_phonemes(text: str, expected: str) -> None:
    assert phonemize(text, "en-gb") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wait — no", "wˈeɪt, nˈoʊ"),
        ("Wait—no", "wˈeɪt, nˈoʊ"),
        ("well… ok", "wˈɛl... ˌoʊkˈeɪ"),
        ("(he said) so", "hiː sˈɛd, sˈoʊ"),
        ("no (really), yes", "nˈoʊ, ɹˈiəli, jˈɛs"),
        ("Stop. (Go.) Yes", "stˈɑːp. ɡˈoʊ. jˈɛs"),
        ("said (“go!”) and left", 'sˈɛd, "ɡˈoʊ!" ænd lˈɛft'),
        ("x , y .", "ˈɛks, wˈaɪ."),
        ("«no», ‘don’t’", '"nˈoʊ", dˈoʊnt'),
        ("¿no?", "nˈoʊ?"),
    ],
)
def test_punctuation_is_what_speech_corpora_write(text: str, expected: str) -> None:
    assert phonemize(text, "en-us") == expected


@pytest.mark.parametrize("text", ["a\nb", "  a \t b ", "a\0b", "a\u00a0b", "a\r\n\r\nb"])
def test_space_and_control_characters_are_one_space(text: str) -> None:
    assert phonemize(text, "en-us") == "ɐ bˈiː"


@pytest.mark.parametrize(("text", "expected"), [("", ""), (" \n", ""), ("—", ""), ("!!!", "!!!")])
def test_nothing_to_speak(text: str, expected: str) -> None:
    assert phonemize(text, "en-us") == expected


def test_rare_phones_become_the_nearest_common_ones() -> None:
    assert phonemize("loch", "en-gb") == "lˈɒk"
    assert phonemize("Llanelli", "en-us") == "lænˈɛli"
    assert phonemize("croissant", "en-us") == "kwˈɑːsɑn"


def test_foreign_letters_leave_no_language_flags_and_no_unknown_symbols() -> None:
    words = "naïve façade Dvořák Αθήνα señor Łódź œuvre привет 안녕 €5 ½ C++ a_b #1 mañana 3²"
    for language in ("en-us", "en-gb"):
        phonemes = phonemize(words, language)
        assert "(" not in phonemes
        assert not Tokenizer().unknown(phonemes)


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en", "en-us"),
        ("en-US", "en-us"),
        ("EN_us", "en-us"),
        ("en-GB", "en-gb"),
        ("en_gb", "en-gb"),
        (" en-gb ", "en-gb"),
    ],
)
def test_language_tags(tag: str, language: str) -> None:
    assert resolve_language(tag) == language


@pytest.mark.parametrize("tag", ["de", "", "english", "en-au", "en-us-x", None])
def test_other_languages_are_refused(tag: str) -> None:
    with pytest.raises(OptionError, match=r"'en-us'.*'en-gb'"):
        resolve_language(tag)
    with pytest.raises(OptionError):
        phonemize("hello", tag)


def test_threads_get_the_phonemes_of_their_own_text() -> None:
    numbers = [f"The number {n} bus, and {n * 7} more; is it?" for n in range(60)]
    jobs = [(text, language) for text in numbers for language in ("en-us", "en-gb")]
    expected = [phonemize(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: phonemize(*job), jobs)) == expected


def test_phonemizer_stays_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        phonemize("Привет, 日本 naïve\n\n... hmm", "en-us")
    assert caplog.records == []


def test_works_without_a_system_espeak_and_without_torch() -> None:
    code = (
        "import sys; from stepflow_tts.text.phonemize import phonemize;"
        "assert 'torch' not in sys.modules; print(ascii(phonemize('no', 'en-gb')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ascii("nˈəʊ")
