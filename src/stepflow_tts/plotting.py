"""A picture of speech: waveform, log-mel and words. The extra [plot]."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from stepflow_tts.audio.io import Samples
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig
from stepflow_tts.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_PEAKS = 4_000  # columns of the waveform; a pixel shows no more than one
MAX_FRAMES = 4_000  # columns of the log-mel
MAX_WORDS = 60  # beyond, their labels would cover each other
INCHES_A_SECOND = 1.6
WIDTH_INCHES = (6.0, 16.0)
QUIETEST_NATS = -9.0  # -78 dB; what lies below is black, silence included


class TimedWord(Protocol):
    """A word with its place in the speech."""

    @property
    def text(self) -> str:
        """As it was written."""

    @property
    def start_seconds(self) -> float:
        """Where it begins."""

    @property
    def end_seconds(self) -> float:
        """Where it ends."""


def plot_speech(samples: Samples, sample_rate: int, words: Sequence[TimedWord] = ()) -> "Figure":
    """A figure with the waveform above the log-mel, and up to 60 words at their places.

    It belongs to no window and need not be closed; a notebook shows it, `savefig` writes it.

    Args:
        samples: (S,) float32 in [-1, 1].
        sample_rate: in Hz.
        words: in order; may be empty.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            'Plots need matplotlib. Install it with pip install "stepflow-tts[plot]".'
        ) from error

    class SpeechFigure(Figure):
        """Notebooks show it, also where pyplot was never imported."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    seconds = len(samples) / sample_rate
    width = min(max(INCHES_A_SECOND * seconds, WIDTH_INCHES[0]), WIDTH_INCHES[1])
    figure = SpeechFigure(figsize=(width, 4.0), layout="constrained")
    wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    _draw_waveform(wave, samples, sample_rate)
    image = draw_mel(mel, samples, sample_rate)
    figure.colorbar(image, ax=mel, label="log-mel in nats", pad=0.01)
    mel.set(xlabel="seconds", ylabel="mel band")
    wave.set_xlim(0.0, seconds)
    for word in words if len(words) <= MAX_WORDS else ():
        wave.axvspan(word.start_seconds, word.end_seconds, alpha=0.15, linewidth=0)
        _label(wave, word)
    return figure


def _label(axes: "Axes", word: TimedWord) -> None:
    """The word above its beginning, slanted so that a short one leaves room for the next."""
    axes.text(
        word.start_seconds,
        1.04,  # of the height
        word.text,
        transform=axes.get_xaxis_transform(),
        rotation=35,
        rotation_mode="anchor",
        fontsize=8,
        parse_math=False,  # dollars are dollars
    )


def _draw_waveform(axes: "Axes", samples: Samples, sample_rate: int) -> None:
    """The highest and lowest sample of each column."""
    size = -(-len(samples) // MAX_PEAKS)
    starts = np.arange(0, len(samples), size)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    # A column reaches to the next, so that they leave no gaps.
    times = np.append(starts, len(samples)) / sample_rate
    axes.stairs(high, times, baseline=low, fill=True)
    axes.set_ylabel("sample")


def draw_mel(axes: "Axes", samples: Samples, sample_rate: int) -> "AxesImage":
    """(M, T) as an image over seconds, its bands from low to high."""
    config = MelConfig(sample_rate=sample_rate)
    waveform = torch.from_numpy(np.array(samples))  # its own: Speech's cannot be written to
    shortest = config.n_fft // 2 + 1
    if len(waveform) < shortest:
        waveform = torch.nn.functional.pad(waveform, (0, shortest - len(waveform)))
    features = log_mel(waveform[None], config)[0]  # (T, M)
    stride = -(-len(features) // MAX_FRAMES)
    features = features[::stride]
    column = stride * config.hop_length / sample_rate  # seconds; frame i is centred on i columns
    return axes.imshow(
        features.T.numpy(),
        origin="lower",
        aspect="auto",
        extent=(-column / 2, (len(features) - 0.5) * column, 0.0, float(config.n_mels)),
        vmin=QUIETEST_NATS,
        cmap="magma",
        interpolation="nearest",
    )
