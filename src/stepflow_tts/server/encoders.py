"""Audio formats written while the samples are still being made.

`write` gives the bytes that are ready, `close` the rest; joined, they are a file that decodes to its
full length. What goes out cannot be changed any more, so no format here depends on its header being
rewritten: WAV tells the length that stands for "unknown", MP3 has a constant bit rate, FLAC, which
could not be read without its length, comes whole at the end.
"""

import io
import struct
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile

from stepflow_tts.audio.io import SOUNDFILE_OPTIONS, Samples, encode_audio
from stepflow_tts.errors import MissingDependencyError
from stepflow_tts.server.schemas import ResponseFormat

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]

UNKNOWN_SIZE = 0xFFFFFFFF
AAC_BIT_RATE = 96_000


class Encoder(Protocol):
    """Samples in, bytes of a file out."""

    def write(self, samples: Samples) -> bytes:
        """The bytes that are ready after (S,) samples in [-1, 1] more; they may be none."""

    def close(self) -> bytes:
        """The last bytes of the file."""


def open_encoder(format: ResponseFormat, sample_rate: int) -> Encoder:
    """A new file in one of the formats.

    Raises:
        MissingDependencyError: AAC without PyAV.
    """
    if format == "pcm":
        return PcmEncoder(b"")
    if format == "wav":
        return PcmEncoder(wav_header(sample_rate))
    if format == "flac":
        return WholeEncoder(format, sample_rate)
    if format == "aac":
        return AacEncoder(sample_rate)
    return SoundfileEncoder(format, sample_rate)


def wav_header(sample_rate: int) -> bytes:
    """The 44 bytes before 16 bit mono samples of a number that is not known yet."""
    form = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", UNKNOWN_SIZE, b"WAVE", b"fmt ", len(form))
        + form
        + struct.pack("<4sI", b"data", UNKNOWN_SIZE)
    )


class PcmEncoder:
    """16 bit little-endian samples after a header."""

    def __init__(self, header: bytes) -> None:
        """Keep the header for the first write."""
        self._header = header

    def write(self, samples: Samples) -> bytes:
        """All of them."""
        header, self._header = self._header, b""
        # Rounded as libsndfile does, so that this is the data of a file that was saved.
        data: bytes = np.rint(samples.clip(-1.0, 1.0) * 32_767).astype("<i2").tobytes()
        return header + data

    def close(self) -> bytes:
        """Nothing, unless nothing was written."""
        return self._header


class WholeEncoder:
    """A file that has to be written in one go."""

    def __init__(self, format: str, sample_rate: int) -> None:
        """Wait for samples."""
        self._format = format
        self._sample_rate = sample_rate
        self._samples: list[Samples] = [np.zeros(0, np.float32)]

    def write(self, samples: Samples) -> bytes:
        """Nothing yet."""
        self._samples.append(samples)
        return b""

    def close(self) -> bytes:
        """The file."""
        return encode_audio(np.concatenate(self._samples), self._sample_rate, self._format)


class SoundfileEncoder:
    """MP3 or Ogg Opus by libsndfile, into a buffer that is emptied again and again."""

    def __init__(self, format: str, sample_rate: int) -> None:
        """Open the file; its header waits for the first write."""
        self._outlet = Outlet()
        self._second = sample_rate
        self._file = soundfile.SoundFile(
            self._outlet, "w", samplerate=sample_rate, channels=1, **SOUNDFILE_OPTIONS[format]
        )

    def write(self, samples: Samples) -> bytes:
        """What libsndfile gives back; Opus keeps up to a second."""
        for start in range(0, len(samples), self._second):
            self._file.write(samples[start : start + self._second].clip(-1.0, 1.0))
        return self._outlet.take()

    def close(self) -> bytes:
        """The last frames."""
        self._file.close()
        return self._outlet.take()


class AacEncoder:
    """AAC in ADTS frames, by PyAV."""

    def __init__(self, sample_rate: int) -> None:
        """Open the file."""
        try:
            import av
        except ImportError as error:
            raise MissingDependencyError(
                'AAC needs PyAV on the server: pip install "stepflow-tts[av]". '
                "Or choose mp3, opus, flac, wav or pcm."
            ) from error
        self._frame = av.AudioFrame
        self._outlet = Outlet()
        self._sample_rate = sample_rate
        self._position = 0
        self._container = av.open(self._outlet, "w", format="adts")
        self._track = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        self._track.bit_rate = AAC_BIT_RATE

    def write(self, samples: Samples) -> bytes:
        """All whole frames of 1024 samples."""
        planar = np.ascontiguousarray(samples[None].clip(-1.0, 1.0))  # (1, S)
        frame = self._frame.from_ndarray(planar, format="fltp", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._position
        self._position += len(samples)
        self._container.mux(self._track.encode(frame))
        return self._outlet.take()

    def close(self) -> bytes:
        """The last frames."""
        self._container.mux(self._track.encode(None))
        self._container.close()
        return self._outlet.take()


class Outlet(io.RawIOBase):
    """A file that can be written once from front to back, and is taken away while it grows."""

    def __init__(self) -> None:
        """Empty."""
        self._waiting = bytearray()
        self._taken = 0
        self._position = 0

    def take(self) -> bytes:
        """What was written since the last time."""
        data = bytes(self._waiting)
        self._taken += len(data)
        self._waiting.clear()
        return data

    def write(self, data: "Buffer") -> int:
        """Write at the position; what has been taken already stays as it was."""
        data = bytes(data)
        start = self._position - self._taken
        self._position += len(data)
        # LAME rewrites its first frame, silent, to tell the length: nothing that is needed.
        if start >= 0:
            self._waiting[start : start + len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        end = self._taken + len(self._waiting)
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, end)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """As libsndfile asks for."""
        return True
