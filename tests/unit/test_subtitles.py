"""Subtitles: formats by hand, and where one ends and the next begins."""

import json

from stepflow_tts.subtitles import Phoneme, Word, cues, to_json, to_srt, to_vtt

WORDS = [
    Word("Hello", 0.1, 0.5),
    Word("there.", 0.55, 0.9),
    Word("<Tom>", 61.0, 61.2),
    Word("&", 61.25, 61.3),
    Word("Jerry", 3661.0004, 3662.9999),
]


def test_srt() -> None:
    assert to_srt(WORDS) == (
        "1\n00:00:00,100 --> 00:00:00,900\nHello there.\n\n"
        "2\n00:01:01,000 --> 00:01:01,300\n<Tom> &\n\n"
        "3\n01:01:01,000 --> 01:01:03,000\nJerry\n"
    )


def test_vtt_is_escaped() -> None:
    assert to_vtt(WORDS[2:4]) == ("WEBVTT\n\n00:01:01.000 --> 00:01:01.300\n&lt;Tom&gt; &amp;\n")


def test_no_words_are_no_subtitles() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_json_holds_all_times() -> None:
    data = json.loads(to_json("Hé", 1.5, WORDS[:1], [Phoneme("ˈɛ", 0.1, 0.2)]))
    assert data == {
        "text": "Hé",
        "duration_seconds": 1.5,
        "words": [{"text": "Hello", "start_seconds": 0.1, "end_seconds": 0.5}],
        "phonemes": [{"text": "ˈɛ", "start_seconds": 0.1, "end_seconds": 0.2}],
    }


def spoken(*texts: str, gap: float = 0.0, seconds: float = 0.3) -> list[Word]:
    step = seconds + gap
    return [Word(text, i * step, i * step + seconds) for i, text in enumerate(texts)]


def test_a_sentence_with_a_pause_after_it_ends_a_subtitle_and_an_abbreviation_does_not() -> None:
    assert [c.text for c in cues(spoken("Dr.", "Lee", "left.", "Good."))] == ["Dr. Lee left. Good."]
    words = spoken("He", "left.", "“Good.”", "Yes", gap=0.2)
    assert [c.text for c in cues(words)] == ["He left.", "“Good.”", "Yes"]


def test_a_long_silence_ends_a_subtitle() -> None:
    assert len(list(cues(spoken("one", "two", gap=0.5)))) == 1
    assert len(list(cues(spoken("one", "two", gap=0.7)))) == 2


def test_subtitles_are_short_in_time_and_on_the_screen() -> None:
    slow = list(cues(spoken(*["word"] * 40, seconds=0.5)))
    assert all(cue.end_seconds - cue.start_seconds <= 6.0 for cue in slow)
    assert len(slow) == 4
    blocks = to_srt(spoken(*["incomprehensible"] * 40, seconds=0.1)).split("\n\n")
    shown = [line for block in blocks for line in block.strip().split("\n")[2:]]
    assert all(len(block.strip().split("\n")) <= 4 for block in blocks)
    assert max(map(len, shown)) <= 42
    assert sum(line.count("incomprehensible") for line in shown) == 40


def test_a_word_wider_than_the_screen_is_not_broken() -> None:
    assert f"\n{'x' * 100}\n" in to_srt([Word("x" * 100, 0.0, 1.0)])
