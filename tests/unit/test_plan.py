"""The plan: phonemes as they were without words, every word once, pauses as asked for."""

import time

import pytest

from stepflow_tts.errors import TextError
from stepflow_tts.text.lexicon import Lexicon
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.plan import Part, chunks, plan
from stepflow_tts.text.split import split
from stepflow_tts.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer()
TEXT = (
    "The end of the day was near — Dr. Lee paid $5.2M, out of his pocket. “No, no!” he said.\n\n"
    "Call 555-123-4567, or write to me@example.org on 5 May 2024. It was the best of times, it was the "
    "worst of times, it was the age of wisdom, it was the age of foolishness, and it was the epoch of "
    "belief, at 10:30 p.m. of the 3rd day."
)


def parts_of(text: str, **options: object) -> list[Part]:
    return plan(text, "en-us", TOKENIZER, **options)  # type: ignore[arg-type]


def words_of(parts: list[Part]) -> list[str]:
    return [span.text for part in parts for span in part.word_spans()]


def test_phonemes_and_pauses_are_those_of_the_chunks() -> None:
    parts = parts_of(TEXT)
    expected = split(normalize(TEXT))
    assert [p.phonemes for p in parts] == [phonemize(c.text, "en-us") for c in expected]
    assert [p.pause_seconds for p in parts] == [c.pause_seconds for c in expected]
    assert [c.text for c in chunks(TEXT, "en-us")] == [c.text for c in expected]
    assert not any(p.exact_pause or p.always_pause or p.inner_pauses for p in parts)


@pytest.mark.parametrize("text", [TEXT, "no no no no. " * 30, "a" * 1001, "1" * 700, "( x — y ) z"])
def test_every_word_is_there_once_and_in_order(text: str) -> None:
    parts = parts_of(text)
    assert len(parts) == len(chunks(text, "en-us"))
    for part in parts:
        places = [place for span in part.word_spans() for place in (span.start, span.end)]
        assert places == sorted(places)
        assert places[0] >= 1
        assert places[-1] < len(part.token_ids)
    kept = "".join(c for c in text if c.isalnum())
    assert "".join(c for c in "".join(words_of(parts)) if c.isalnum()) == kept


def test_words_are_as_written() -> None:
    assert words_of(parts_of("He paid  $5.2M\non “Jan.\t1st” — at last!")) == [
        "He",
        "paid",
        "$5.2M",
        "on",
        "“Jan.",
        "1st”",
        "at",
        "last!",
    ]


def test_half_a_surrogate_pair_is_shown_as_such() -> None:
    assert words_of(parts_of("he\ud800llo \udc00 you")) == ["he\ufffdllo", "you"]


def test_a_number_in_words_is_not_cut() -> None:
    for lead in range(60, 120, 5):
        text = (
            "w " * lead + "and then call 555-123-4567 or 555-123-4568 again because of " + "w " * 40
        )
        assert "555-123-4567" in words_of(parts_of(text))


def test_pauses_that_were_asked_for() -> None:
    asked = {"clause": 0.1, "sentence": 0.2, "line": 0.3}
    first = "Yes, it is so, I think it is. Of course it is what I think."
    text = f"{first}\nAnd then, well, it is not so.\n\nBut then why?"
    parts = parts_of(text, pause_seconds=asked)
    assert [(p.pause_seconds, p.exact_pause) for p in parts] == [
        (0.2, True),
        (0.3, True),
        (0.7, False),
        (0.3, True),
    ]
    for part in parts:
        for start, end, seconds in part.inner_pauses:
            assert seconds == (0.1 if part.phonemes[start - 1] == "," else 0.2)
            assert set(part.phonemes[start - 1 : end - 1]) <= set(",. ")
    assert [len(p.inner_pauses) for p in parts] == [2, 0, 2, 0]
    assert parts_of("Yes, it is. No.", pause_seconds={"sentence": 0.2})[0].inner_pauses == (
        (13, 15, 0.2),
    )


def test_ssml_becomes_parts() -> None:
    markup = """<speak><break time="2s"/>Wait <break time="1s"/> for <prosody rate="80%">the
        <sub alias="world wide web">WWW</sub></prosody>. <p>Say <phoneme ph="wˈɪn">Nguyen</phoneme>.
        </p></speak>"""
    parts = parts_of(markup, markup="ssml")
    assert [(p.phonemes, p.pause_seconds, p.rate, p.before_seconds) for p in parts] == [
        ("wˈeɪt", 1.0, 1.0, 2.0),
        ("fɔːɹ", 0.05, 1.0, 0.0),
        ("ðə wˈɜːld wˈaɪd wˈɛb.", 0.7, 0.8, 0.0),
        ("sˈeɪ wˈɪn.", 0.7, 1.0, 0.0),
    ]
    assert [(p.exact_pause, p.always_pause) for p in parts] == [(True, True), *[(False, False)] * 3]
    assert words_of(parts) == ["Wait", "for", "the", "WWW.", "Say", "Nguyen."]


def test_an_hour_of_pauses_is_enough() -> None:
    breaks = '<break time="10s"/>'
    assert parts_of(f"<speak>{breaks * 360}a</speak>", markup="ssml")[0].before_seconds == 3600
    with pytest.raises(TextError, match="3610 s in all; 3600 s are allowed"):
        parts_of(f"<speak>{breaks * 360}a{breaks}</speak>", markup="ssml")
    with pytest.raises(TextError, match="3605 s in all"):
        parts_of("a\n" * 721, pause_seconds={"line": 5.0})
    with pytest.raises(TextError, match="s in all"):
        parts_of("a, b " * 730, pause_seconds={"clause": 5.0})


def test_the_lexicon_holds_for_ssml_but_not_against_it() -> None:
    lexicon = Lexicon({"b": "/bˈi/", "c": "see"})
    markup = '<speak>b <sub alias="other">b c</sub> c</speak>'
    (part,) = parts_of(markup, markup="ssml", lexicon=lexicon)
    assert part.phonemes == "bˈi ˈʌðɚ sˈiː."


def test_plain_text_interprets_nothing() -> None:
    (part,) = parts_of('a <break time="3s"/> b')
    assert (part.phonemes, part.exact_pause) == (phonemize("a b.", "en-us"), False)


def test_foreign_letters_that_are_given_are_spoken_and_others_are_still_refused() -> None:
    lexicon = Lexicon({"日本": "Japan", "❤️": "love"})
    (part,) = parts_of("I ❤️ 日本.", lexicon=lexicon)
    assert part.phonemes == "aɪ lˈʌv dʒəpˈæn."
    assert words_of([part]) == ["I", "❤️", "日本."]
    with pytest.raises(ValueError, match="Chinese"):
        parts_of("日本 東京都東京都", lexicon=lexicon)


@pytest.mark.parametrize(
    "unit", ["a", "(", "[", "1", "\u200b", "👍", "\ud800", "a\u0301", "a, ", "-"]
)
def test_time_grows_no_faster_than_the_text(unit: str) -> None:
    lexicon = Lexicon({"aa": "b", "(": "c"})

    def seconds(length: int) -> float:
        text = "x " + unit * (length // len(unit))
        start = time.process_time()
        for part in parts_of(text, lexicon=lexicon):
            part.word_spans()
        return time.process_time() - start

    # Linear is 4 times, quadratic 16.
    long, short = min(seconds(4000), seconds(4000)), min(seconds(1000), seconds(1000))
    assert long < 9 * short + 0.02
