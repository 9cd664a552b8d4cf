"""Speech: the samples that were synthesized, and ways to save, join and play them."""

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stepflow_tts.audio.io import FORMATS, Samples, encode_audio
from stepflow_tts.errors import OptionError, SynthesisError
from stepflow_tts.files import write_atomic
from stepflow_tts.subtitles import Phoneme, Word, to_json, to_srt, to_vtt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Speech:
    """Synthesized speech. Its samples are a copy of their own and cannot be written to.

    Attributes:
        samples: (S,) float32 in [-1, 1].
        sample_rate: in Hz.
        seed: what the noise was drawn from; the same call with it gives the same samples.
        text: what is spoken, as it was written.
        words: of the text in order, each with the time it is heard; "$5.2M" is one, whatever is
            said for it.
        phonemes: what is heard, sound by sound.

    Raises:
        OptionError: samples that are not (S,) with S above 0, or a sample rate that is not
            positive.
        SynthesisError: samples that are not finite.
    """

    samples: Samples
    sample_rate: int
    seed: int = 0
    text: str = ""
    words: tuple[Word, ...] = ()
    phonemes: tuple[Phoneme, ...] = ()

    def __post_init__(self) -> None:
        samples = np.array(self.samples, dtype=np.float32)
        if samples.ndim != 1 or samples.size == 0:
            raise OptionError(
                f"Speech needs samples of shape (S,), S above 0, not {samples.shape}."
            )
        if self.sample_rate <= 0:
            raise OptionError(f"The sample rate is {self.sample_rate} Hz; it must be above 0.")
        if not np.isfinite(samples).all():
            bad = int(np.isfinite(samples).argmin())
            raise SynthesisError(f"Sample {bad} is {samples[bad]}: this is not speech.")
        samples.setflags(write=False)
        object.__setattr__(self, "samples", samples)

    @property
    def duration_seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.sample_rate

    def to_bytes(self, format: str = "wav") -> bytes:
        """The bytes of a whole audio file.

        Args:
            format: "wav" (16 bit), "flac", "ogg" (Vorbis), "opus", "mp3"; with the extra [av] also
                "m4a" and bare "aac", which alone is longer: 1024 samples before, up to 1023 after.

        Raises:
            OptionError: no such format, or one that cannot hold this sample rate.
            MissingDependencyError: m4a or aac without PyAV.
        """
        return encode_audio(self.samples, self.sample_rate, format)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """The path of the file it was saved to, in the format of its extension.

        The file appears whole or, after a failure, not at all; one that was there stays as it was.

        Raises:
            OptionError: the extension is none of .wav, .flac, .ogg, .opus, .mp3, .m4a and .aac, or
                the folder does not exist.
            MissingDependencyError: m4a or aac without PyAV.
            OSError: the system could not write (no permission, full disk).
        """
        extension = Path(path).suffix
        if extension[1:].lower() not in FORMATS:
            raise OptionError(
                f"Cannot save as {str(path)!r}: the extension is {extension!r}. "
                f"Choose one of: {', '.join('.' + name for name in FORMATS)}."
            )
        return write_atomic(path, self.to_bytes(extension[1:].lower()))

    def to_srt(self) -> str:
        """Subtitles in the format of .srt files: at most two lines and six seconds each."""
        return to_srt(self.words)

    def to_vtt(self) -> str:
        """Subtitles in the format of .vtt files, as browsers show them."""
        return to_vtt(self.words)

    def to_json(self) -> str:
        """Text, duration_seconds, words and phonemes as one JSON object."""
        return to_json(self.text, self.duration_seconds, self.words, self.phonemes)

    def plot(self) -> "Figure":
        """A matplotlib figure: the waveform with its words above the log-mel.

        It belongs to no window: a notebook shows it, `savefig` writes it.

        Raises:
            MissingDependencyError: matplotlib, the extra [plot], is not installed.
        """
        from stepflow_tts.plotting import plot_speech

        return plot_speech(self.samples, self.sample_rate, self.words)

    def slice(self, start_seconds: float, end_seconds: float | None = None) -> "Speech":
        """The part between two times, without its text; up to the end when `end_seconds` is None.

        A word belongs to the part in which its middle is.

        Raises:
            OptionError: not 0 <= start < end <= duration.
        """
        end_seconds = self.duration_seconds if end_seconds is None else end_seconds
        if not 0 <= start_seconds < end_seconds <= self.duration_seconds:
            raise OptionError(
                f"Cannot slice from {start_seconds} s to {end_seconds} s: this speech goes from 0 "
                f"to {self.duration_seconds:.3f} s."
            )
        start, end = (round(time * self.sample_rate) for time in (start_seconds, end_seconds))
        cut = _Cut(start / self.sample_rate, end / self.sample_rate, end == len(self.samples))
        return Speech(
            self.samples[start:end],
            self.sample_rate,
            self.seed,
            "",
            tuple(Word(*timed) for timed in cut.of(self.words)),
            tuple(Phoneme(*timed) for timed in cut.of(self.phonemes)),
        )

    @staticmethod
    def join(pieces: Iterable["Speech"], text: str | None = None) -> "Speech":
        """All pieces, one after the other, such as those of `StepFlowTTS.stream`.

        Args:
            pieces: one or more; the seed is that of the first.
            text: what they say; None joins their texts.

        Raises:
            OptionError: there are none, or their sample rates differ.
        """
        parts = list(pieces)
        if not parts:
            raise OptionError("There is no speech to join; give one piece or more.")
        rate = parts[0].sample_rate
        words: list[Word] = []
        phonemes: list[Phoneme] = []
        num_samples = 0
        for part in parts:
            if part.sample_rate != rate:
                raise OptionError(
                    f"Cannot join speech at {rate} Hz and {part.sample_rate} Hz: "
                    "synthesize both with the same checkpoint."
                )
            offset = num_samples / rate
            words += (Word(t, a + offset, b + offset) for t, a, b in part.words)
            phonemes += (Phoneme(t, a + offset, b + offset) for t, a, b in part.phonemes)
            num_samples += len(part.samples)
        return Speech(
            np.concatenate([part.samples for part in parts]),
            rate,
            parts[0].seed,
            " ".join(part.text for part in parts if part.text) if text is None else text,
            tuple(words),
            tuple(phonemes),
        )

    def __add__(self, other: "Speech") -> "Speech":
        """Both, one after the other, with the seed of the first.

        Raises:
            OptionError: their sample rates differ.
        """
        if not isinstance(other, Speech):
            return NotImplemented
        return Speech.join((self, other))

    def __repr__(self) -> str:
        return (
            f"Speech({self.duration_seconds:.2f} s, {self.sample_rate} Hz, seed={self.seed}, "
            f"text={self.text[:40]!r})"
        )

    def __reduce__(self) -> tuple[type["Speech"], tuple[object, ...]]:
        # Through the constructor: an array that was unpickled as it is would be writable.
        values = (self.samples, self.sample_rate, self.seed, self.text, self.words, self.phonemes)
        return Speech, values

    def _repr_html_(self) -> str:
        """A player for notebooks."""
        data = base64.b64encode(self.to_bytes("wav")).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


class _Cut(NamedTuple):
    """A part of a speech, in seconds."""

    start: float
    end: float
    is_last: bool

    def of(self, timed: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, float, float]]:
        """What has its middle in the part, cut to it and counted from its start."""
        for text, a, b in timed:
            middle = (a + b) / 2
            if self.start <= middle and (middle < self.end or self.is_last):
                yield text, max(a, self.start) - self.start, min(b, self.end) - self.start
