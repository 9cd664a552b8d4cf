"""Words in the phonemes of a chunk, where espeak-ng joins them, reduces them and adds sounds."""

import pytest

from stepflow_tts.text.locate import pause_spans, phoneme_spans, word_spans
from stepflow_tts.text.phonemize import phonemize


def located(text: str, language: str = "en-us") -> dict[str, str]:
    phonemes = phonemize(text, language)
    spans = word_spans([(word, word) for word in text.split()], phonemes, language)
    return {span.text: phonemes[span.start : span.end] for span in spans}


def test_joined_and_weak_words_are_told_apart() -> None:
    assert located("The end of a day, for our sake.") == {
        "The": "ðɪ",
        "end": "ˈɛnd",
        "of": "əv",
        "a": "ə",
        "day,": "dˈeɪ",
        "for": "fɔːɹ",
        "our": "ˌaʊɚ",
        "sake.": "sˈeɪk",
    }


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("out of the house", "en-us", ["ˌaʊɾ", "əv", "ðə", "hˈaʊs"]),
        ("I am to be in the", "en-us", ["aɪ", "ɐm", "tə", "bi", "ɪn", "ðə"]),
        ("far away", "en-gb", ["fˈɑːɹ", "ɐwˈeɪ"]),
        ("would have been", "en-us", ["wʊd", "hɐv", "bˌɪn"]),
    ],
)
def test_groups_of_words(text: str, language: str, expected: list[str]) -> None:
    phonemes = phonemize(text, language)
    spans = word_spans([(word, word) for word in text.split()], phonemes, language)
    assert [phonemes[span.start : span.end] for span in spans] == expected


def test_sounds_that_no_word_has_alone_belong_to_the_word_they_touch() -> None:
    phonemes = "wˈʌnt ztˈɛn"
    spans = word_spans([("one", "one"), ("ten", "ten")], phonemes, "en-us")
    assert [phonemes[s.start : s.end] for s in spans] == ["wˈʌnt", "ztˈɛn"]


def test_repeated_words_are_each_found_once() -> None:
    phonemes = phonemize("No no, no. No!", "en-us")
    spans = word_spans([(w, w) for w in ("No", "no,", "no.", "No!")], phonemes, "en-us")
    assert [phonemes[s.start : s.end] for s in spans] == ["nˈoʊ"] * 4
    assert [s.start for s in spans] == [0, 5, 11, 17]


def test_what_is_written_once_may_be_spoken_in_many_words() -> None:
    words = [("It's", "It's"), ("$5.2M", "five point two million dollars"), ("now.", "now.")]
    phonemes = phonemize("It's five point two million dollars now.", "en-us")
    spans = word_spans(words, phonemes, "en-us")
    assert [(s.text, phonemes[s.start : s.end]) for s in spans] == [
        ("It's", "ɪts"),
        ("$5.2M", "fˈaɪv pˈɔɪnt tˈuː mˈɪliən dˈɑːlɚz"),
        ("now.", "nˈaʊ"),
    ]


def test_what_is_not_written_is_spoken_but_no_word() -> None:
    spans = word_spans(
        [("one", "one"), ("", "two"), ("three", "three")], "wˈʌn tˈuː θɹˈiː", "en-us"
    )
    assert [(s.text, s.start, s.end) for s in spans] == [("one", 0, 4), ("three", 10, 15)]


@pytest.mark.parametrize("phonemes", ["", " ", ".", "zzz", "wˈʌn", "ðə ðə ðə ðə ðə", "a" * 400])
def test_phonemes_of_something_else_still_give_spans_in_order(phonemes: str) -> None:
    words = [(word, word) for word in ["one", "two", "three", "four"]]
    spans = word_spans(words, phonemes, "en-us")
    assert [span.text for span in spans] == ["one", "two", "three", "four"]
    ends = [place for span in spans for place in (span.start, span.end)]
    assert ends == sorted(ends)
    assert 0 <= ends[0] <= ends[-1] <= len(phonemes)


def test_sounds_take_their_stress_and_length() -> None:
    spans = phoneme_spans('ˌaʊt, "dˈɑːn̩ ')
    assert [s.text for s in spans] == ["ˌa", "ʊ", "t", "d", "ˈɑː", "n̩"]
    assert [s.start for s in spans] == [0, 2, 3, 7, 8, 11]


def test_pauses_run_from_their_mark_to_the_next_sound() -> None:
    phonemes = '"nˈoʊ", hiː: ɡˈoʊ... ˈaɪ?" wˈɛl.'
    assert [(s.text, phonemes[s.start : s.end]) for s in pause_spans(phonemes)] == [
        ("clause", ", "),
        ("clause", ": "),
        ("sentence", "... "),
        ("sentence", '?" '),
    ]
