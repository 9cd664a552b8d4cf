"""m4a, mp4, webm and AAC through PyAV, which holds FFmpeg's libraries: the extra [av]."""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from stepflow_tts.errors import AudioError, MissingDependencyError, OptionError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

Samples: TypeAlias = npt.NDArray[np.float32]

PIP_COMMAND = 'pip install "stepflow-tts[av]"'
# Demuxers by kind of file. One that is named cannot be talked into another by the file's content:
# FFmpeg's playlists and scripts open paths and addresses.
DEMUXERS = {"m4a": "mov", "webm": "matroska", "aac": "aac"}
MUXERS = {"m4a": "ipod", "aac": "adts"}
AAC_RATES = (
    *(7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000),
    *(32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
)
BIT_RATE = 96_000  # mono; FFmpeg lowers it for rates that cannot hold as much


def is_installed() -> bool:
    """True if PyAV is there."""
    return importlib.util.find_spec("av") is not None


def require(format: str) -> None:
    """Raises MissingDependencyError, which tells how to install PyAV, where it is not there."""
    if not is_installed():
        raise MissingDependencyError(
            f"Writing {format} needs PyAV. Install it with {PIP_COMMAND}, or choose mp3 or opus."
        )


@contextmanager
def open_blocks(
    stream: BinaryIO, kind: str, name: str, block_seconds: float
) -> Iterator[tuple[int, Iterator[Samples]]]:
    """The sample rate of the first audio track, and its mono blocks (S,), none empty.

    Args:
        stream: seekable; decoded only as far as blocks are asked for.
        kind: a key of `DEMUXERS`.
        name: how messages call the source.
        block_seconds: about how long a block is.

    Raises:
        AudioError: damaged, without an audio track or samples; for later damage, when its block is reached.
    """
    import av

    try:
        container = av.open(stream, "r", format=DEMUXERS[kind])
    except av.FFmpegError as error:
        raise AudioError(_damaged(name, kind, error)) from error
    with container:
        tracks = [track for track in container.streams.audio if track.codec_context is not None]
        if not tracks:
            raise AudioError(f"{name} is {kind} without an audio track that can be decoded.")
        frames = _frames(container, tracks[0], kind, name)
        first = next(frames, None)
        if first is None:
            raise AudioError(f"{name} is {kind} with no samples in it. Export it as WAV.")
        rate = first.sample_rate  # HE-AAC's is twice what the header tells
        size = round(block_seconds * rate)
        yield rate, _blocks(chain([first], frames), size, _end(tracks[0], kind, rate))


def encode(samples: Samples, sample_rate: int, format: str) -> bytes:
    """The bytes of a whole AAC file.

    An m4a tells its exact length and where it starts. Bare AAC cannot: it starts 1024 samples late
    and is filled up to a whole number of 1024.

    Args:
        samples: (S,) float32 in [-1, 1].
        sample_rate: in Hz.
        format: a key of `MUXERS`.

    Raises:
        MissingDependencyError: PyAV is not installed.
        OptionError: AAC has no such sample rate.
    """
    require(format)
    import av

    if sample_rate not in AAC_RATES:
        raise OptionError(
            f"Cannot write {format} at {sample_rate} Hz. Resample to one of "
            f"{', '.join(map(str, AAC_RATES))} Hz, or choose wav."
        )
    buffer = io.BytesIO()
    # The length of an m4a is kept in this unit, by default milliseconds.
    options = {"movie_timescale": str(sample_rate)} if format == "m4a" else {}
    with av.open(buffer, "w", format=MUXERS[format], options=options) as container:
        track = container.add_stream("aac", rate=sample_rate, layout="mono")
        track.bit_rate = BIT_RATE
        for start in range(0, len(samples), sample_rate):
            part = np.ascontiguousarray(samples[None, start : start + sample_rate])  # (1, 1 s)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            frame.pts = start
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return buffer.getvalue()


def _frames(
    container: "InputContainer", track: "AudioStream", kind: str, name: str
) -> "Iterator[AudioFrame]":
    """Decoded frames of planar floats."""
    import av

    resampler = av.AudioResampler(format="fltp")
    try:
        for frame in container.decode(track):
            yield from resampler.resample(frame)
    except (av.FFmpegError, ValueError) as error:  # ValueError: rate or channels change midway
        raise AudioError(_damaged(name, kind, error)) from error


def _end(track: "AudioStream", kind: str, rate: int) -> int | None:
    """The number of samples that an m4a says to play; FFmpeg decodes whole frames beyond it."""
    if kind != "m4a" or not track.duration or track.time_base is None:
        return None
    return round(track.duration * track.time_base * rate)


def _blocks(frames: "Iterator[AudioFrame]", size: int, end: int | None) -> Iterator[Samples]:
    """Mono blocks of at least `size` samples, but for the last.

    Only the last frame is cut at `end`: the length in a header may be that of a first fragment.
    """
    waiting: list[npt.NDArray[Any]] = []
    position = held = 0
    for frame in frames:
        if held >= size:
            yield np.concatenate(waiting)
            position, held, waiting = position + held, 0, []
        samples = frame.to_ndarray().mean(axis=0)  # (S,) of (C, S)
        waiting.append(samples)
        held += len(samples)
    if not waiting:
        return
    block = np.concatenate(waiting)
    if end is not None and 0 < position + held - end < len(waiting[-1]):
        block = block[: end - position]
    if len(block):
        yield block


def _damaged(name: str, kind: str, error: Exception) -> str:
    return f"{name} is damaged, or not the {kind} that it seems to be ({error}). Export it as WAV."
