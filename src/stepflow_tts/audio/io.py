"""Audio in and out: files, bytes and arrays to mono waveforms, and samples to encoded bytes."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from stepflow_tts.audio import ffmpeg, sources
from stepflow_tts.audio.sources import open_stream, path_of, source_name
from stepflow_tts.errors import AudioError, OptionError

AudioSource: TypeAlias = sources.AudioSource
Samples: TypeAlias = ffmpeg.Samples

SAMPLE_RATES = (4_000, 768_000)  # Hz, lowest and highest that are taken for real
MAX_PEAK = 2.0**31  # float arrays may hold unscaled integers; beyond, squares overflow float32
BLOCK_SECONDS = 5.0

SOUNDFILE_OPTIONS: dict[str, dict[str, Any]] = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    # Constant: the length of a variable bit rate is lost where the header cannot be rewritten.
    # 0.3 is about 112 kbit/s at 24 kHz.
    "mp3": {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": 0.3,
    },
}
FORMATS = (*SOUNDFILE_OPTIONS, *ffmpeg.MUXERS)
"""What `encode_audio` writes, by the extension of the file; m4a and aac need the extra [av]."""


def load_audio(source: AudioSource, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """The whole audio as a mono waveform (S,) float32, and its sample rate in Hz.

    Channels are averaged. Integer samples are scaled by the range of their type.

    Args:
        source: path, bytes or binary file object of whatever libsndfile reads, and of m4a, mp4,
            webm and AAC with the extra [av]; or an array or tensor (S,), (S, C) or (C, S), whose
            smaller axis holds the channels.
        sample_rate: in Hz; required for arrays and tensors, since files carry their own.

    Raises:
        AudioError: missing, empty, not audio, no samples, non-finite samples, or no usable rate.
    """
    with open_blocks(source, sample_rate) as (rate, blocks):
        return torch.from_numpy(np.concatenate(list(blocks))), rate


def check_format(format: str) -> None:
    """Refuses what `encode_audio` cannot write, before the work that leads there is done.

    Raises:
        OptionError: none of `FORMATS`.
        MissingDependencyError: it needs PyAV, which is not installed.
    """
    if format not in FORMATS:
        raise OptionError(
            f"Cannot write the format {format!r}. Choose one of: {', '.join(FORMATS)}."
        )
    if format in ffmpeg.MUXERS:
        ffmpeg.require(format)


def encode_audio(samples: Samples, sample_rate: int, format: str) -> bytes:
    """The bytes of a whole file in one of `FORMATS`; samples beyond [-1, 1] are clipped.

    Args:
        samples: (S,) float32.
        sample_rate: in Hz.
        format: one of `FORMATS`.

    Raises:
        OptionError: no such format, or one that cannot hold this sample rate.
        MissingDependencyError: m4a or aac without PyAV.
    """
    check_format(format)
    if format in ffmpeg.MUXERS:
        return ffmpeg.encode(samples.clip(-1.0, 1.0), sample_rate, format)
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", samplerate=sample_rate, channels=1, **SOUNDFILE_OPTIONS[format]
        ) as file:
            for start in range(0, len(samples), sample_rate):  # long Vorbis writes crash libsndfile
                file.write(samples[start : start + sample_rate].clip(-1.0, 1.0))
    except soundfile.SoundFileError as error:
        raise OptionError(
            f"Cannot write {format} at {sample_rate} Hz ({error}). Resample, or choose wav."
        ) from error
    return buffer.getvalue()


@contextmanager
def open_blocks(
    source: AudioSource, sample_rate: int | None
) -> Iterator[tuple[int, Iterator[Samples]]]:
    """The sample rate, and mono blocks (S,) of 5 s: at least one, none empty, all finite.

    Only the blocks that are asked for are decoded.

    Raises:
        AudioError: as `load_audio`; for a bad sample, when its block is reached.
    """
    if isinstance(source, np.ndarray | Tensor):
        if sample_rate is None:
            raise AudioError(
                "An array has no sample rate of its own: pass sample_rate=, such as 24000."
            )
        _check_rate(sample_rate)
        yield sample_rate, _checked(_array_blocks(source, sample_rate), sample_rate, source)
        return
    with _open_file(source) as (rate, blocks):
        _check_rate(rate)
        if sample_rate not in (None, rate):
            raise AudioError(
                f"{source_name(source)} has a sample rate of {rate} Hz, but sample_rate="
                f"{sample_rate} was passed. Leave it out: a file carries its own."
            )
        yield rate, _checked(blocks, rate, source)


def _checked(blocks: Iterator[Samples], rate: int, source: AudioSource) -> Iterator[Samples]:
    """The blocks, or an error at the first sample that is no sound, or if there is none."""
    position = 0
    for block in blocks:
        good = np.abs(block) <= MAX_PEAK  # False for NaN
        if not good.all():
            bad = int(good.argmin())
            raise AudioError(
                f"{source_name(source)} has the sample {block[bad]} at "
                f"{(position + bad) / rate:.2f} s. Samples must be finite, and floats between -1 "
                "and 1: repair the audio or record it again."
            )
        position += len(block)
        yield block
    if position == 0:
        raise AudioError(
            f"{source_name(source)} holds no samples. Record 3 to 8 s of clear speech."
        )


def _file_blocks(file: soundfile.SoundFile, source: AudioSource) -> Iterator[Samples]:
    size = round(BLOCK_SECONDS * file.samplerate)
    try:
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            yield block.mean(axis=1)
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{source_name(source)} is damaged: {error}. Export it again as WAV."
        ) from error


def _array_blocks(source: npt.NDArray[Any] | Tensor, rate: int) -> Iterator[Samples]:
    if isinstance(source, Tensor):
        tensor = source.detach().cpu()
        source = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
    if source.ndim not in (1, 2):
        raise AudioError(
            f"An array of audio is (S,), (S, C) or (C, S), not {tuple(source.shape)}. "
            "Pass one recording at a time."
        )
    if source.dtype.kind not in "fiu" or source.dtype in (np.int64, np.uint64):
        raise AudioError(
            f"Samples of type {source.dtype} have no known scale. Pass floats in [-1, 1], or "
            "integers of 8, 16 or 32 bits."
        )
    if source.size == 0:
        return
    if source.ndim == 1:
        source = source[:, None]
    elif source.shape[0] < source.shape[1]:
        source = source.T
    size = round(BLOCK_SECONDS * rate)
    for start in range(0, len(source), size):
        block = source[start : start + size]  # (5 s, C)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, refused by _checked
            yield _scaled(block).mean(axis=1)


def _scaled(block: npt.NDArray[Any]) -> Samples:
    """Float32 samples; integers divided by half the range of their type, unsigned ones centred."""
    if block.dtype.kind == "f":
        return block.astype(np.float32)
    half = 2.0 ** (8 * block.dtype.itemsize - 1)
    offset = half if block.dtype.kind == "u" else 0.0
    scaled: Samples = ((block.astype(np.float64) - offset) / half).astype(np.float32)
    return scaled


@contextmanager
def _open_file(
    source: str | os.PathLike[str] | bytes | BinaryIO,
) -> Iterator[tuple[int, Iterator[Samples]]]:
    """The sample rate and the mono blocks of an encoded source."""
    stream = open_stream(source)
    with stream:
        head = stream.read(16)
        if not head:
            hint = (
                "" if isinstance(source, str | os.PathLike | bytes) else " Rewind it with seek(0)."
            )
            raise AudioError(f"{source_name(source)} is empty: 0 bytes to read.{hint}")
        stream.seek(0)
        kind = _kind(head)
        if kind in ffmpeg.DEMUXERS and ffmpeg.is_installed():
            name = source_name(source)
            with ffmpeg.open_blocks(stream, kind, name, BLOCK_SECONDS) as opened:
                yield opened
            return
        try:
            file = soundfile.SoundFile(stream)
        except (
            soundfile.SoundFileError,
            TypeError,
        ) as error:  # TypeError: a name that ends in .raw
            raise AudioError(f"{source_name(source)} {_why_not(kind, source)}") from error
        with file:
            yield int(file.samplerate), _file_blocks(file, source)


def _kind(head: bytes) -> str | None:
    """What a file with these first bytes is, if it is audio that libsndfile does not read."""
    if head[4:8] == b"ftyp":
        return "m4a"  # also mp4, mov, 3gp
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "webm"  # also mkv
    if head[0] == 0xFF and head[1:] and head[1] & 0xF6 == 0xF0:
        return "aac"
    if head[:4] == b"\x30\x26\xb2\x75":
        return "wma"
    return "amr" if head[:5] == b"#!AMR" else None


def _why_not(kind: str | None, source: AudioSource) -> str:
    """Why a file of this kind was refused, and what to do."""
    if kind is None:
        return "is not audio that can be read. Pass WAV, FLAC, OGG, Opus, MP3 or AIFF."
    path = path_of(source) or Path(f"in.{kind}")
    convert = f"onvert it: ffmpeg -i {path} {path.stem}.wav"
    if kind in ffmpeg.DEMUXERS:
        return f"is {kind}, which needs PyAV: {ffmpeg.PIP_COMMAND}. Or c{convert}"
    return f"is {kind}, which is not read here. C{convert}"


def _check_rate(sample_rate: object) -> None:
    low, high = SAMPLE_RATES
    if not (isinstance(sample_rate, int | np.integer) and low <= sample_rate <= high):
        raise AudioError(
            f"The sample rate is {sample_rate!r}; it must be a whole number of Hz from {low} to "
            f"{high}."
        )
