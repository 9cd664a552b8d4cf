"""Chunks: where a text is cut, how long they get and how long the pauses are."""

import pytest

from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.split import (
    CLAUSE_PAUSE,
    LINE_PAUSE,
    LONGEST,
    OPENING,
    PARAGRAPH_PAUSE,
    SENTENCE_PAUSE,
    SHORTEST,
    TYPICAL,
    WORD_PAUSE,
    split,
)

LONG = "It was the best of times, it was the worst of times, it was the age of wisdom, "
FIRST = "This is the first sentence of the text."


def texts(text: str) -> list[str]:
    return [chunk.text for chunk in split(text)]


def pauses(text: str) -> list[float]:
    return [chunk.pause_seconds for chunk in split(text)]


def sentences(text: str) -> list[str]:
    """Chunks of `text` after a first chunk, on lines of their own so that none are joined."""
    return texts(f"{FIRST}\n{text}")[1:]


def test_pauses_follow_the_ending() -> None:
    text = f"{FIRST} {'A' * 110}. {'B' * 110}.\nA line\n\nA paragraph"
    assert pauses(text) == [
        SENTENCE_PAUSE,
        SENTENCE_PAUSE,
        LINE_PAUSE,
        PARAGRAPH_PAUSE,
        LINE_PAUSE,
    ]
    assert WORD_PAUSE < CLAUSE_PAUSE < SENTENCE_PAUSE < LINE_PAUSE < PARAGRAPH_PAUSE


def test_the_first_chunk_is_one_sentence_and_later_ones_are_joined() -> None:
    text = " ".join([FIRST, "The second one is short too.", "So is the third.", "X" * 90 + "."])
    assert texts(text) == [FIRST, "The second one is short too. So is the third.", "X" * 90 + "."]


LONG_FIRST = "These days a rare dish, or so they say in the city, is what it was before."


def test_a_long_first_sentence_is_cut_after_its_first_clause() -> None:
    first, second, *_ = split(f"{LONG_FIRST} {FIRST}")
    assert (first.text, first.pause) == ("These days a rare dish,", "clause")
    assert second.text == "or so they say in the city, is what it was before."
    assert second.pause == "sentence"


def test_a_long_first_sentence_without_a_clause_stays_whole() -> None:
    text = "The people who remember how the old market used to look are few and live far away."
    assert texts(text) == [text]
    assert texts(f"{text[:-5]}, way.") == [f"{text[:-5]}, way."]  # what is left would be clipped


def test_a_short_first_sentence_and_later_ones_stay_whole() -> None:
    short = "It is a rare old dish, or so they say in it."
    assert len(short) < OPENING < len(LONG_FIRST)
    assert texts(short) == [short]
    assert sentences(LONG_FIRST) == [LONG_FIRST]


def test_a_first_sentence_is_not_cut_inside_a_number() -> None:
    number = "one hundred and five, and six"
    text = f"There were {number} of the people of the city, who had come to see it all."
    start = text.index(number)
    assert split(text)[0].text == "There were one hundred and five,"
    whole = split(text, whole=[(start, start + len(number))])
    assert whole[0].text == f"There were {number} of the people of the city,"


def test_short_sentences_join_up_to_the_typical_length() -> None:
    half = "S" * (TYPICAL // 2 - 1) + "."
    assert list(map(len, sentences(" ".join([half] * 4)))) == [TYPICAL // 2] * 4
    shorter = half[1:]
    assert list(map(len, sentences(" ".join([shorter] * 4)))) == [TYPICAL - 1] * 2


def test_a_tiny_first_sentence_joins_the_second() -> None:
    assert len("Yes.") < SHORTEST
    assert texts("Yes. I think that would be fine.") == ["Yes. I think that would be fine."]


@pytest.mark.parametrize(
    "whole",
    [
        "Pi is 3.14 and e is 2.71 in most of the books that are sold these days around here, I think",
        "It was Dr. Smith and Mr. J. Jones vs. Mrs. Lee, e.g. at 5 p.m. on the day of the great race",
        "See No. 5 and fig. 7 on p. 12 of the second edition of this book that nobody ever read at all",
        "He said so... and then he left the house without another word to anybody who was still there",
        '"Go!" he said, and she went away from there as fast as her feet would carry her down the road',
    ],
)
def test_numbers_and_abbreviations_are_not_cut(whole: str) -> None:
    assert sentences(f"{whole}. {whole}!") == [f"{whole}.", f"{whole}!"]


def test_a_list_number_is_not_cut_off() -> None:
    item = "1. The first item of a list that goes on for long enough to stand alone" + " here" * 20
    assert len(item) > TYPICAL
    assert sentences(item) == [item]


def test_the_longest_sentence_stays_whole_and_one_more_character_does_not() -> None:
    words = "abcd " * (LONGEST // 5 - 1)
    whole = f"{words}abcd."
    assert len(whole) == LONGEST
    assert texts(whole) == [whole]
    assert len(texts(f"{words}abcde.")) == 2


@pytest.mark.parametrize("end", [".", "!", "?", "…", "...", "?!", '."', ".)", "!'"])
def test_sentence_ends(end: str) -> None:
    one = "Word " * 20 + "end" + end
    assert sentences(f"{one} {one}") == [one, one]


def test_long_sentences_are_cut_at_clauses_evenly() -> None:
    chunks = split(LONG * 5 + "and it was over.", first=False)
    assert all(chunk.text.endswith((",", ".")) for chunk in chunks)
    assert all(LONGEST // 3 < len(chunk.text) <= LONGEST for chunk in chunks)
    assert {chunk.pause_seconds for chunk in chunks[:-1]} == {CLAUSE_PAUSE}
    assert chunks[-1].pause_seconds == LINE_PAUSE


def test_without_clauses_cuts_come_before_conjunctions_then_between_words() -> None:
    words = "many things of no great use at all " * 4
    first, second = split(f"{words[:105]}because {words}{words[:35]}".strip())
    assert second.text.startswith("because many")
    assert first.pause_seconds == WORD_PAUSE
    parts = texts("word " * 100)
    assert {word for part in parts for word in part.split()} == {"word"}
    assert max(map(len, parts)) - min(map(len, parts)) < len("word " * 3)


def test_a_word_longer_than_a_chunk_is_cut_inside() -> None:
    assert [len(part) for part in texts("a" * 450)] == [200, 200, 50]


def test_whole_spans_are_not_cut_where_a_cut_can_be_elsewhere() -> None:
    words = "many things " * 8
    number = "five, six, seven, eight"
    text = f"{words}{number} {words}{words}".strip()
    assert split(text)[0].text.endswith("seven,")
    start = len(words)
    (first, *_) = split(text, whole=[(start, start + len(number))])
    assert number in first.text
    assert [c.text for c in split(text, whole=[(0, len(text))])] == texts(text)


@pytest.mark.parametrize("text", ["", " \n ", "...", "—\n!!\n"])
def test_nothing_to_say_gives_no_chunks(text: str) -> None:
    assert split(text) == []


def test_lines_of_marks_are_left_out() -> None:
    assert texts("One line.\n***\nTwo lines.") == ["One line.", "Two lines."]


@pytest.mark.parametrize(
    "text",
    [
        LONG * 7,
        "Hello. " * 50,
        "a, " * 300,
        "Dr. No. 5 e.g. 3.14 … ! ? — ;: " * 30,
        "line one\nline two\n\n\nline three\r\nline four",
        "x" * 1000 + ". " + "y" * 190 + " z.",
    ],
)
def test_chunks_are_slices_that_lose_no_word(text: str) -> None:
    chunks = split(text)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip()
        assert len(chunk.text) <= LONGEST
        assert "\n" not in chunk.text
        assert following is None or chunk.end <= following.start


def test_normalized_text_is_cut_where_people_pause() -> None:
    text = "Dr. Lee left at 5 p.m. She had $3.50. See No. 7.\n- one\n- two"
    assert texts(normalize(text)) == [
        "Doctor Lee left at five P-M.",
        "She had three dollars and fifty cents. See number seven.",
        "one.",
        "two.",
    ]
