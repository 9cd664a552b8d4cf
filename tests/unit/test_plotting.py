"""The picture of speech."""

import sys

import numpy as np
import pytest

from stepflow_tts.audio.mel import band_centres
from stepflow_tts.config import MelConfig
from stepflow_tts.errors import MissingDependencyError
from stepflow_tts.plotting import MAX_WORDS, plot_speech
from stepflow_tts.speech import Speech
from stepflow_tts.subtitles import Word

RATE = 24_000


def tone(seconds=2.0, frequency=440.0):
    """Half silent, half a tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * frequency * time) * (time >= seconds / 2)).astype(np.float32)


def test_waveform_and_log_mel_are_where_they_sound():
    wave, mel, *_ = plot_speech(tone(), RATE).axes
    assert wave.get_xlim() == mel.get_xlim() == (0.0, 2.0)
    (stairs,) = wave.patches
    high, edges, low = stairs.get_data()
    assert edges[0] == 0.0
    assert edges[-1] == 2.0
    silent = edges[:-1] < 0.999
    assert (high[silent] == 0).all()
    assert high[~silent].max() == pytest.approx(0.5, abs=0.01)
    assert low[~silent].min() == pytest.approx(-0.5, abs=0.01)
    image = np.asarray(mel.images[0].get_array())  # (M, T)
    assert image.shape == (100, 188)
    assert (image[:, :90] < image[:, 100:].max() - 5).all()
    loudest = image[:, 100:180].argmax(axis=0)
    assert set(loudest) == {int((band_centres(MelConfig()) - 440).abs().argmin())}
    left, right, bottom, top = mel.images[0].get_extent()
    assert (left, right) == (pytest.approx(-256 / RATE / 2), pytest.approx(187.5 * 256 / RATE))
    assert bottom < top
    assert mel.images[0].origin == "lower"


def test_words_are_written_as_they_are_at_their_places():
    words = [Word("$5.2M$", 0.1, 0.6), Word("later", 0.7, 1.5)]
    figure = plot_speech(tone(), RATE, words)
    wave = figure.axes[0]
    assert [label.get_text() for label in wave.texts] == ["$5.2M$", "later"]
    assert not any(label.get_parse_math() for label in wave.texts)
    assert [label.get_position()[0] for label in wave.texts] == [0.1, 0.7]
    spans = [patch for patch in wave.patches if hasattr(patch, "get_x")]
    assert [(span.get_x(), span.get_width()) for span in spans] == [
        (0.1, pytest.approx(0.5)),
        (0.7, pytest.approx(0.8)),
    ]


def test_too_many_words_are_left_out():
    for count in (MAX_WORDS, MAX_WORDS + 1):
        words = [Word("a", i / 100, i / 100 + 0.01) for i in range(count)]
        assert len(plot_speech(tone(), RATE, words).axes[0].texts) == (count == MAX_WORDS) * count


def test_a_notebook_gets_a_picture_of_bounded_size():
    long = np.tile(tone(10.0), 30)  # five minutes
    figure = plot_speech(long, RATE)
    assert figure._repr_png_().startswith(b"\x89PNG")
    wave, mel, *_ = figure.axes
    assert len(wave.patches[0].get_data().values) <= 4_000
    assert mel.images[0].get_array().shape[1] <= 4_000
    assert wave.patches[0].get_data().edges[-1] == 300.0
    assert "matplotlib.pyplot" not in sys.modules  # whose figures would be kept for ever


@pytest.mark.parametrize(("num_samples", "rate"), [(1, RATE), (400, RATE), (16_000, 16_000)])
def test_short_speech_and_other_rates_are_drawn(num_samples, rate):
    samples = tone()[-num_samples:]
    samples.setflags(write=False)
    wave, mel, *_ = plot_speech(samples, rate).axes
    assert wave.get_xlim() == (0.0, num_samples / rate)
    assert np.isfinite(mel.images[0].get_array()).all()


def test_without_matplotlib_the_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "stepflow-tts\[plot\]"'):
        plot_speech(tone(), RATE)


def test_speech_plots_its_words():
    words = (Word("one", 0.1, 0.6), Word("two", 0.7, 1.5))
    wave = Speech(tone(), RATE, words=words).plot().axes[0]
    assert [label.get_text() for label in wave.texts] == ["one", "two"]
    assert wave.get_xlim() == (0.0, 2.0)
