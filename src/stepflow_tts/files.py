"""Writing a file so that it is there whole, or not at all."""

import os
import secrets
from pathlib import Path

from stepflow_tts.errors import OptionError


def write_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """The path, which now holds `data`; after any failure it is as it was before.

    Written to a temporary file in the same folder, which then takes the place of the target. A
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
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Path(path)
