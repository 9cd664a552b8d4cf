"""Words with their times, pauses, SSML and the lexicon, end to end with random weights."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepflow_tts import OptionError, Speech, StepFlowTTS, TextError
from stepflow_tts.cli import main
from stepflow_tts.subtitles import Word

TEXT = (
    "It raised $5.2M, out of the blue. “Dr. Lee” left at 10:30 p.m. that day.\nThe end, of it all!"
)
WRITTEN = (
    "It raised $5.2M, out of the blue. “Dr. Lee” left at 10:30_p.m. that day. The end, of it all!"
)
RATE = 24_000


@pytest.fixture(scope="module")
def speech(tts: StepFlowTTS) -> Speech:
    return tts.synthesize(TEXT)


def word(speech: Speech, text: str) -> Word:
    (found,) = [w for w in speech.words if w.text == text]
    return found


def gap(speech: Speech, before: str, after: str) -> float:
    return word(speech, after).start_seconds - word(speech, before).end_seconds


def test_every_word_has_its_time_in_order(speech: Speech) -> None:
    assert [w.text.replace(" ", "_") for w in speech.words] == WRITTEN.split()
    for timed in (speech.words, speech.phonemes):
        times = [t for _, start, end in timed for t in (start, end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= speech.duration_seconds
    assert all(w.end_seconds - w.start_seconds > 0.01 for w in speech.words)


def test_a_word_lasts_as_long_as_its_sounds(speech: Speech) -> None:
    def sounds(text: str) -> str:
        w = word(speech, text)
        inside = [p for p in speech.phonemes if w.start_seconds <= p.start_seconds < w.end_seconds]
        assert inside[0].start_seconds == w.start_seconds
        assert inside[-1].end_seconds == w.end_seconds
        return "".join(p.text for p in inside)

    assert sounds("$5.2M,") == "fˈaɪvpˈɔɪnttˈuːmˈɪliəndˈɑːlɚz"
    assert [sounds(w) for w in ("out", "the", "blue.")] == ["ˌaʊɾ", "ðə", "blˈuː"]


def test_silence_belongs_to_no_word(speech: Speech) -> None:
    first, second = word(speech, "day."), word(speech, "The")
    assert second.start_seconds - first.end_seconds > 0.5  # the pause of a line
    between = speech.slice(first.end_seconds + 0.2, second.start_seconds - 0.2).samples
    assert (between == 0).all()


def test_pieces_of_a_stream_join_to_the_whole(tts: StepFlowTTS, speech: Speech) -> None:
    pieces = list(tts.stream(TEXT))

    joined = Speech.join(pieces, TEXT)
    assert np.array_equal(joined.samples, speech.samples)
    assert (joined.words, joined.phonemes, joined.text) == (
        speech.words,
        speech.phonemes,
        speech.text,
    )
    assert pieces[1].words[0].start_seconds < pieces[0].words[-1].start_seconds
    assert [w.text for w in sum(pieces[1:], pieces[0]).words] == [w.text for w in speech.words]
    assert pieces[-1].text == "The end, of it all!"


def test_twice_the_speed_halves_the_times(tts: StepFlowTTS, speech: Speech) -> None:
    fast = tts.synthesize(TEXT, speed=2.0)

    assert [w.text for w in fast.words] == [w.text for w in speech.words]
    for quick, slow in zip(fast.words, speech.words, strict=True):
        assert quick.start_seconds == pytest.approx(slow.start_seconds / 2, abs=0.06)
        assert quick.end_seconds == pytest.approx(slow.end_seconds / 2, abs=0.06)


def test_times_survive_pickle_and_slices(speech: Speech) -> None:
    assert pickle.loads(pickle.dumps(speech)).words == speech.words
    w = word(speech, "Lee”")
    cut = speech.slice(w.start_seconds, w.end_seconds)
    assert [part.text for part in cut.words] == ["Lee”"]
    assert cut.words[0] == pytest.approx(("Lee”", 0.0, cut.duration_seconds), abs=1e-4)


# Pauses


def test_pauses_are_as_long_as_asked(tts: StepFlowTTS) -> None:
    text = "Well, it is. So be it.\nNext line.\n\nLast one."
    asked = {"clause": 0.2, "sentence": 0.4, "line": 0.8, "paragraph": 1.2}

    for speed in (1.0, 2.0):
        speech = tts.synthesize(text, pause_seconds=asked, speed=speed)
        # A chunk begins with at most some frames of silence.
        assert gap(speech, "Well,", "it") == pytest.approx(0.2, abs=0.011)
        assert gap(speech, "is.", "So") == pytest.approx(0.4, abs=0.011)
        assert gap(speech, "it.", "Next") == pytest.approx(0.8, abs=0.12)
        assert gap(speech, "line.", "Last") == pytest.approx(1.2, abs=0.12)
        after = speech.duration_seconds - speech.words[-1].end_seconds
        assert after < 0.4  # no pause after the last


def test_pauses_not_named_stay(tts: StepFlowTTS) -> None:
    text = "First line.\nNext part.\n\nLast one."
    plain = tts.synthesize(text)
    asked = tts.synthesize(text, pause_seconds={"line": 3.0})

    assert gap(asked, "part.", "Last") == pytest.approx(gap(plain, "part.", "Last"), abs=1e-4)
    assert gap(asked, "line.", "Next") > gap(plain, "line.", "Next") + 1.0


@pytest.mark.parametrize(
    ("pauses", "message"),
    [
        ({"comma": 0.1}, "key 'comma'; known are clause, sentence, line, paragraph"),
        ({"word": 0.1}, "key 'word'"),
        ({"line": -0.1}, r"pause_seconds\['line'\] is -0\.1; it must be from 0 to 5"),
        ({"line": 5.1}, r"is 5\.1"),
        ({"line": float("nan")}, "is nan"),
        ({"line": "long"}, "is 'long'; it must be a number"),
        (0.5, "is 0.5; it must be a mapping"),
    ],
)
def test_pauses_out_of_range(tts: StepFlowTTS, pauses: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tts.stream("Hello.", pause_seconds=pauses)


# SSML and the lexicon


def test_breaks_are_heard_where_they_are(tts: StepFlowTTS) -> None:
    markup = '<speak><break time="1s"/>One <break time="600ms"/> two.<break time="2s"/></speak>'
    speech = tts.synthesize(markup, markup="ssml", speed=2.0)

    assert speech.words[0].start_seconds == pytest.approx(1.0, abs=0.1)
    assert (speech.samples[: RATE - 1] == 0).all()
    assert gap(speech, "One", "two.") == pytest.approx(0.6, abs=0.12)
    assert speech.duration_seconds - speech.words[-1].end_seconds == pytest.approx(2.0, abs=0.01)
    pieces = list(tts.stream(markup, markup="ssml", speed=2.0))
    assert Speech.join(pieces).words == speech.words


def test_the_rate_of_ssml(tts: StepFlowTTS) -> None:
    def seconds(rate: str, **options: float) -> float:
        markup = f'<speak><prosody rate="{rate}">Some words to say.</prosody></speak>'
        words = tts.synthesize(markup, markup="ssml", **options).words
        return words[-1].end_seconds - words[0].start_seconds

    assert seconds("50%") == pytest.approx(2 * seconds("100%"), rel=0.05)
    assert seconds("x-slow", speed=2.0) == pytest.approx(seconds("medium"), rel=0.01)
    with pytest.raises(OptionError, match=r"rate 50% at speed 0\.9; their product is 0\.45"):
        seconds("50%", speed=0.9)


def test_markup_is_said_as_text_unless_asked_for(tts: StepFlowTTS) -> None:
    with pytest.raises(TextError, match="line 1: <mark> is not supported"):
        tts.synthesize("<speak><mark name='a'/>Hello.</speak>", markup="ssml")
    assert [w.text for w in tts.synthesize("1 <mark> 2").words] == ["1", "2"]
    with pytest.raises(OptionError, match="markup is 'xml'; it must be 'plain' or 'ssml'"):
        tts.stream("Hello.", markup="xml")  # type: ignore[arg-type]


def test_a_lexicon_changes_its_words_only(checkpoint_folder: Path, tts: StepFlowTTS) -> None:
    own = StepFlowTTS.from_pretrained(
        checkpoint_folder, lexicon={"Nguyen": "/wˈɪn/", "SQL": "sequel"}
    )

    same = own.synthesize("Hello there.")
    assert same.samples.tobytes() == tts.synthesize("Hello there.").samples.tobytes()
    speech = own.synthesize("Hello Nguyen, SQL!")
    assert [w.text for w in speech.words] == ["Hello", "Nguyen,", "SQL!"]
    assert "".join(p.text for p in speech.phonemes) == "həlˈoʊwˈɪnsˈiːkwəl"
    with pytest.raises(OptionError, match=r"Lexicon, 'x': /4/ holds '4'"):
        StepFlowTTS.from_pretrained(checkpoint_folder, lexicon={"x": "/4/"})


# The command line


def test_say_takes_markup_a_lexicon_and_writes_subtitles(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.tsv").write_text("SQL\tsequel\n")
    Path("text.ssml").write_text('<speak>Hello <break time="1s"/> SQL.</speak>')
    options = ["--markup", "ssml", "--lexicon", "words.tsv", "--srt", "a.srt", "-o", "a.wav"]

    assert main(["say", "--file", "text.ssml", *options, "--model", str(checkpoint_folder)]) == 0

    own = StepFlowTTS.from_pretrained(checkpoint_folder, lexicon="words.tsv")
    speech = own.synthesize(Path("text.ssml").read_text(), markup="ssml")
    assert Path("a.srt").read_text() == speech.to_srt()
    assert Path("a.wav").read_bytes() == speech.to_bytes("wav")
    assert [w["text"] for w in json.loads(speech.to_json())["words"]] == ["Hello", "SQL."]


def test_say_refuses_bad_markup_lexicons_and_places(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["-o", str(tmp_path / "a.wav"), "--model", str(checkpoint_folder)]
    bad = tmp_path / "bad.tsv"
    bad.write_text("one two\n")

    assert main(["say", "<speak>Hello", "--markup", "ssml", *model]) == 2
    assert main(["say", "Hello", "--lexicon", str(bad), *model]) == 2
    assert main(["say", "Hello", "--srt", str(tmp_path / "no" / "a.srt"), *model]) == 2
    told = capsys.readouterr().err
    assert "<speak> of line 1 is open" in told
    assert "bad.tsv, line 1: " in told
    assert "there is no such folder" in told
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tsv"]
