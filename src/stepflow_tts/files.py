"""Writing a file so that it is there whole, or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stepflow_tts.errors import OptionError

TEMPORARY = ".*.tmp"  # what a process that was killed may leave behind


def write_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """The path, which now holds `data`; after any failure it is as it was before.

    Raises:
        OptionError: as `open_atomic`.
        OSError: as `open_atomic`.
    """
    with open_atomic(path) as file:
        file.write(data)
    return Path(path)


@contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write what the path shall hold; after any failure it is as it was before.

    It is a temporary file in the same folder, which at the end takes the place of the target. A
    symbolic link is followed.

    Raises:
        OptionError: the folder does not exist, or the path is a folder or a device.
        OSError: the system could not write (no permission, full disk).
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OptionError(
            f"Cannot write {path}: there is no folder {target.parent}. Create it first."
        )
    if target.exists() and not target.is_file():
        raise OptionError(f"Cannot write {path}: it is a folder or a device, not a file.")
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
