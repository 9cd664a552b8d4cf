"""Where audio comes from: paths, bytes, streams and arrays, and what they hold."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stepflow_tts.errors import AudioError

AudioSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | Tensor
"""A path, an encoded file's bytes, a file object opened in binary mode, an array or a tensor."""

MAX_HASHED_BYTES = 64_000_000  # 50 ms or so; of longer recordings only 30 s are read anyway


class FileContent(bytes):
    """The bytes of a source that was read; messages go on calling it by its path.

    Attributes:
        path: None for one that has none.
    """

    path: Path | None

    def __new__(cls, content: bytes, source: AudioSource) -> "FileContent":
        """The content of a source."""
        self = super().__new__(cls, content)
        self.path = path_of(source)
        return self


def open_stream(source: str | os.PathLike[str] | bytes | BinaryIO) -> BinaryIO:
    """A seekable binary stream of our own; a caller's file object is read from where it stands."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
            if is_file:
                return open(path, "rb")
        except OSError as error:
            raise AudioError(f"Cannot read {str(path)[:200]!r}: {error.strerror}.") from error
        if is_folder:
            raise AudioError(f"{path} is a folder. Pass one audio file.")
        hint = " Addresses are not fetched: download it." if "://" in str(source) else ""
        raise AudioError(f"There is no audio file {path}.{hint} Check the path.")
    if hasattr(source, "read"):
        data = source.read()
        if isinstance(data, bytes):
            return io.BytesIO(data)
        raise AudioError(
            f"{source_name(source)} gives {type(data).__name__}: open it in binary mode, 'rb'."
        )
    raise AudioError(
        f"Audio cannot come from {type(source).__name__}. Pass a path, bytes, a binary file "
        "object, or a NumPy array or tensor with sample_rate=."
    )


def source_name(source: AudioSource) -> str:
    """How messages call the source."""
    if isinstance(source, np.ndarray | Tensor):
        return "The array"
    return str(path_of(source) or "The audio data")


def path_of(source: AudioSource) -> Path | None:
    """Where the source lies, if that is known."""
    if isinstance(source, FileContent):
        return source.path
    return Path(source) if isinstance(source, str | os.PathLike) else None


def snapshot(source: AudioSource) -> tuple[AudioSource, bytes | None]:
    """A source that holds what `source` does now, and a hash of that.

    A file is read once for both, so the hash is that of what is decoded even if the file is being
    replaced; a stream, which can be read only once, is kept. The hash is None where there is none to
    be had at little cost, from more than 64 MB, and of a source that is empty or cannot be opened, which
    is for its reader to tell.
    """
    if isinstance(source, np.ndarray | Tensor):
        return source, _array_hash(source)
    try:
        if isinstance(source, str | os.PathLike) and os.path.getsize(source) > MAX_HASHED_BYTES:
            return source, None
        with open_stream(source) as stream:
            content = FileContent(stream.read(), source)
    except (AudioError, OSError, ValueError):  # ValueError: a null character in the path
        return source, None
    if not content:
        return source, None
    small = len(content) <= MAX_HASHED_BYTES
    return content, hashlib.sha256(content).digest() if small else None


def _array_hash(array: npt.NDArray[Any] | Tensor) -> bytes | None:
    """Of its type, shape and numbers."""
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.nbytes > MAX_HASHED_BYTES:
        return None
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + array.tobytes()).digest()
