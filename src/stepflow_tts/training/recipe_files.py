"""Recipe files: TOML, one laid over another."""

import tomllib
from pathlib import Path
from typing import Any

from stepflow_tts.errors import OptionError


def read_tables(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, over those of the file that its key `extends` names, if it has one.

    Args:
        path: of the TOML file; what it extends is relative to it.
        seen: files that extend this one.

    Raises:
        OptionError: a file is missing, is not TOML, or extends itself.
    """
    if path.resolve() in seen:
        raise OptionError(f"The recipe {path} extends itself. Remove its `extends`.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"Cannot read the recipe {path}: {error.strerror}.") from error
    except ValueError as error:
        raise OptionError(f"The recipe {path} is not TOML: {error}.") from error
    below = tables.pop("extends", None)
    if below is None:
        return tables
    if not isinstance(below, str):
        raise OptionError(f"extends is {below!r} in {path}; it must be the path of a recipe.")
    return _laid_over(read_tables(path.parent / below, (*seen, path.resolve())), tables)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The tables of both; a key that stands in both is that of `above`."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _laid_over(below[key], above[key])
    return merged
