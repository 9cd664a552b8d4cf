import base64
import io
import json
import os
import pickle
import re
import resource

import numpy as np
import pytest
import soundfile

from stepflow_tts.errors import OptionError, SynthesisError
from stepflow_tts.speech import Speech
from stepflow_tts.subtitles import Phoneme, Word

RATE = 24_000


def tone(seconds=1.0, frequency=220.0):
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.fixture
def speech():
    return Speech(tone(), RATE, seed=7, text="Hello there.")


def test_its_samples_are_its_own_and_cannot_be_written_to():
    samples = tone()
    speech = Speech(samples, RATE)
    samples[:] = 0
    assert np.array_equal(speech.samples, tone())
    with pytest.raises(ValueError, match="read-only"):
        speech.samples[0] = 1.0


def test_duration_is_samples_over_rate():
    assert Speech(tone(1.5), RATE).duration_seconds == 1.5


def test_it_can_be_pickled(speech):
    copy = pickle.loads(pickle.dumps(speech))
    assert np.array_equal(copy.samples, speech.samples)
    assert (copy.sample_rate, copy.seed, copy.text) == (RATE, 7, "Hello there.")
    assert not copy.samples.flags.writeable


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3", "WAV"])
def test_every_format_decodes_to_its_full_length(speech, tmp_path, extension):
    path = speech.save(tmp_path / f"a.{extension}")
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    assert len(samples) == RATE
    exact = extension.lower() in ("wav", "flac")
    middle = slice(2_400, -2_400)
    assert np.abs(samples - speech.samples)[middle].max() < (2**-15 if exact else 0.03)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "opus", "mp3"])
def test_lengths_that_fill_no_block_survive_encoding(format):
    for num_samples in (1, 1_000, 2 * RATE + 17):
        data = Speech(tone(3.0)[:num_samples], RATE).to_bytes(format)
        assert soundfile.info(io.BytesIO(data)).frames == num_samples


@pytest.mark.parametrize("format", ["wav", "ogg", "mp3"])
def test_samples_beyond_one_are_clipped(format):
    loud = 2 * tone() / 0.3
    samples, _ = soundfile.read(io.BytesIO(Speech(loud, RATE).to_bytes(format)))
    error = np.abs(samples - np.clip(loud, -1, 1)).max()
    assert error < (1e-3 if format == "wav" else 0.3)


def test_an_unknown_extension_names_the_allowed_ones(speech, tmp_path):
    for name in ("a.wma", "a", "a.raw"):
        with pytest.raises(OptionError, match=r"\.wav, \.flac, \.ogg, \.opus, \.mp3, \.m4a"):
            speech.save(tmp_path / name)
    with pytest.raises(OptionError, match="'wma'"):
        speech.to_bytes("wma")
    assert os.listdir(tmp_path) == []


def test_a_rate_that_a_format_cannot_hold_is_refused():
    with pytest.raises(OptionError, match="22050 Hz"):
        Speech(tone(), 22_050).to_bytes("opus")


def test_a_missing_folder_is_not_made(speech, tmp_path):
    with pytest.raises(OptionError, match="no folder"):
        speech.save(tmp_path / "missing" / "a.wav")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_not_replaced(speech, tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OptionError, match="folder"):
        speech.save(tmp_path / "a.wav")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_failed_write_leaves_the_old_file(speech, tmp_path):
    path = Speech(tone(0.01), RATE).save(tmp_path / "a.wav")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))  # as a full disk would
    try:
        with pytest.raises(OSError, match="too large"):
            speech.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


def test_saving_replaces_through_a_link(speech, tmp_path):
    link = tmp_path / "link.wav"
    link.symlink_to(tmp_path / "real.wav")
    assert speech.save(link) == link
    assert link.is_symlink()
    assert soundfile.info(tmp_path / "real.wav").frames == RATE


def test_a_saved_file_has_the_usual_permissions(speech, tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    expected = (tmp_path / "usual").stat().st_mode
    assert speech.save(tmp_path / "a.wav").stat().st_mode == expected


def test_adding_joins_end_to_end(speech):
    other = Speech(tone(0.5, 440.0), RATE, seed=9, text="You.")
    joined = speech + other
    assert np.array_equal(joined.samples, np.concatenate([speech.samples, other.samples]))
    assert (joined.seed, joined.text) == (7, "Hello there. You.")


def timed():
    words = (Word("one,", 0.1, 0.3), Word("$2", 0.4, 0.6), Word("three", 0.8, 1.0))
    return Speech(tone(), RATE, 7, "one, $2 three", words, (Phoneme("w", 0.1, 0.15),))


def test_adding_shifts_words_and_phonemes():
    joined = timed() + timed().slice(0.2)
    assert [w.text for w in joined.words] == ["one,", "$2", "three", "one,", "$2", "three"]
    assert joined.words[:3] == timed().words
    assert joined.words[4] == pytest.approx(("$2", 1.2, 1.4))
    assert joined.phonemes == timed().phonemes


def test_joining_equals_adding():
    pieces = [timed(), Speech(tone(0.5), RATE, seed=9), timed()]
    joined, added = Speech.join(pieces), pieces[0] + pieces[1] + pieces[2]
    assert np.array_equal(joined.samples, added.samples)
    assert joined.words[3] == Word("one,", 1.6, 1.8) == added.words[3]
    assert (joined.seed, joined.text) == (7, "one, $2 three one, $2 three")
    assert Speech.join(iter(pieces), "all").text == "all"
    with pytest.raises(OptionError, match="no speech to join"):
        Speech.join([])
    with pytest.raises(OptionError, match="24000 Hz and 16000 Hz"):
        Speech.join([timed(), Speech(tone(), 16_000)])


def test_a_slice_has_its_words_cut_and_counted_from_its_start():
    first, second = timed().slice(0.2, 0.55), timed().slice(0.55)
    assert [w.text for w in first.words] == ["one,", "$2"]  # the middles decide
    assert first.words[0] == pytest.approx(("one,", 0.0, 0.1))
    assert first.words[1] == pytest.approx(("$2", 0.2, 0.35))
    assert [w.text for w in second.words] == ["three"]
    assert second.words[0] == pytest.approx(("three", 0.25, 0.45))
    assert first.phonemes == ()


def test_a_word_at_the_very_end_is_in_the_last_slice():
    speech = Speech(tone(), RATE, words=(Word("end", 1.0, 1.0),))
    assert speech.slice(0.5).words == (Word("end", 0.5, 0.5),)
    assert speech.slice(0.0, 0.5).words == ()


def test_words_survive_pickling_and_become_subtitles():
    copy = pickle.loads(pickle.dumps(timed()))
    assert (copy.words, copy.phonemes) == (timed().words, timed().phonemes)
    assert copy.to_srt() == "1\n00:00:00,100 --> 00:00:01,000\none, $2 three\n"
    assert copy.to_vtt() == "WEBVTT\n\n00:00:00.100 --> 00:00:01.000\none, $2 three\n"
    data = json.loads(copy.to_json())
    assert (data["text"], data["duration_seconds"]) == ("one, $2 three", 1.0)
    assert data["words"][1] == {"text": "$2", "start_seconds": 0.4, "end_seconds": 0.6}
    assert data["phonemes"] == [{"text": "w", "start_seconds": 0.1, "end_seconds": 0.15}]


def test_adding_needs_equal_rates(speech):
    with pytest.raises(OptionError, match="24000 Hz and 16000 Hz"):
        speech + Speech(tone(), 16_000)
    with pytest.raises(TypeError):
        speech + tone()


def test_a_slice_and_the_rest_make_the_whole(speech):
    joined = speech.slice(0, 0.25) + speech.slice(0.25)
    assert np.array_equal(joined.samples, speech.samples)
    assert speech.slice(0.25, 0.5).samples[0] == speech.samples[6_000]


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, 0.5), (0.5, 0.5), (0.6, 0.5), (0, 1.1), (float("nan"), 1)]
)
def test_a_slice_outside_is_refused(speech, start, end):
    with pytest.raises(OptionError, match=r"from 0 to 1\.000 s"):
        speech.slice(start, end)


def test_the_player_holds_the_wav(speech):
    data = re.fullmatch(
        r'<audio controls src="data:audio/wav;base64,(.*)"></audio>', speech._repr_html_()
    )
    assert data is not None
    assert base64.b64decode(data[1]) == speech.to_bytes("wav")


def test_repr_is_short():
    shown = repr(Speech(tone(), RATE, seed=3, text="word " * 100))
    assert shown.startswith("Speech(1.00 s, 24000 Hz, seed=3")
    assert len(shown) < 100


@pytest.mark.parametrize("samples", [np.zeros((2, 5)), np.zeros(0), np.float32(1.0)])
def test_samples_of_another_shape_are_refused(samples):
    with pytest.raises(OptionError, match="shape"):
        Speech(samples, RATE)


def test_impossible_values_are_refused():
    with pytest.raises(OptionError, match="0 Hz"):
        Speech(tone(), 0)
    samples = tone()
    samples[5] = np.nan
    with pytest.raises(SynthesisError, match="Sample 5 is nan"):
        Speech(samples, RATE)
