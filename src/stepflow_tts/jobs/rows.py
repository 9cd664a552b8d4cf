"""The rows of a job's input, each checked once: JSON lines, CSV or Parquet."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stepflow_tts.errors import MissingDependencyError, OptionError

COLUMNS = ("id", "text", "voice")
REQUIRED = ("id", "text")
MAX_ID_BYTES = 80  # so that it is a file's name however it is written
PIP_COMMAND = 'pip install "stepflow-tts[ray]"'


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input; what cannot be spoken has a reason."""

    number: int  # of the line in JSON lines, else of the row below the header; from 1
    id: str
    text: str
    voice: str  # "" is the job's
    reason: str = ""


class Shard(NamedTuple):
    """Rows that are spoken in one go, and stand or fall together."""

    number: int  # from 0
    rows: tuple[Row, ...]


class _Found(NamedTuple):
    """A row as it stands in the file."""

    number: int
    fields: dict[str, object]
    reason: str = ""  # why it is none


def check_input(path: Path) -> None:
    """Refuses what is no input, before anything is loaded.

    Raises:
        OptionError: there is no such file, or its extension is not known.
        MissingDependencyError: it is Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() not in READERS:
        raise OptionError(
            f"The input {path} must be one of {', '.join(READERS)}, by its extension."
        )
    if not path.is_file():
        raise OptionError(f"There is no file {path}. Name the rows to speak.")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"Reading Parquet needs pyarrow ({error}): {PIP_COMMAND}"
            ) from error


def read_shards(path: Path, shard_rows: int) -> Iterator[Shard]:
    """All rows in order, `shard_rows` at a time: always the same shards for the same file.

    Raises:
        OptionError: as `read_rows`.
    """
    rows = read_rows(path)
    number = 0
    while some := tuple(islice(rows, shard_rows)):
        yield Shard(number, some)
        number += 1


def read_rows(path: Path) -> Iterator[Row]:
    """All rows in order, those that cannot be spoken with the reason; none is left out.

    Raises:
        OptionError: the file cannot be read, or has no column for the ids or the texts.
    """
    seen: dict[str, int] = {}
    try:
        for found in READERS[path.suffix.lower()](path):
            row = _checked(found, seen)
            if not row.reason:
                seen[row.id] = row.number
            yield row
    except OSError as error:
        raise OptionError(f"The input {path} cannot be read: {error}.") from error


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(found: _Found, seen: dict[str, int]) -> Row:
    """The row that was found; `seen` is where each id stood first."""
    values = {name: found.fields.get(name) for name in COLUMNS}
    id = values["id"]
    if isinstance(id, int) and not isinstance(id, bool):
        values["id"] = str(id)
    id, text, voice = (_text(values[name]) for name in COLUMNS)
    reason = found.reason or _wrong(values)
    if not reason and id in seen:
        reason = f"The id is that of row {seen[id]}, too."
    return Row(found.number, id, text, voice, reason)


def _wrong(values: dict[str, object]) -> str:
    """Why the values of a row cannot be spoken; empty if they can."""
    for name, value in values.items():
        if value is None or value == "":
            if name in REQUIRED:
                return f"There is no {name}."
        elif not isinstance(value, str):
            return f"The {name} is {_text(value)[:40]}; it must be a string."
        elif not value.strip():
            return f"The {name} is blank."
        elif any("\ud800" <= character <= "\udfff" for character in value):
            return f"The {name} is not UTF-8. Convert the file with iconv -t UTF-8."
    size = len(str(values["id"]).encode())
    if size > MAX_ID_BYTES:
        return f"The id has {size} bytes; {MAX_ID_BYTES} are allowed."
    return ""


def _text(value: object) -> str:
    """A value as it is shown where it is rejected."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _read_jsonl(path: Path) -> Iterator[_Found]:
    # Bytes that are no UTF-8 become surrogates, which spoil their row and not the others. Lines end
    # at \n alone: JSON may hold U+2028 and its like as they are.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _Found(number, {"text": line.rstrip("\r\n")}, f"It is not JSON: {error}.")
                continue
            if isinstance(fields, dict):
                yield _Found(number, fields)
            else:
                yield _Found(number, {"text": line.rstrip("\r\n")}, "It is not a JSON object.")


def _read_csv(path: Path) -> Iterator[_Found]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        _check_columns(path, header)
        try:
            for number, row in enumerate((row for row in reader if row), 1):
                reason = ""
                if len(row) != len(header):
                    reason = f"It has {len(row)} fields, and the header has {len(header)}."
                yield _Found(number, dict(zip(header, row, strict=False)), reason)
        except csv.Error as error:
            line = reader.line_num
            raise OptionError(f"The input {path} is no CSV at line {line}: {error}.") from error


def _read_parquet(path: Path) -> Iterator[_Found]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            number = 0
            for batch in file.iter_batches(1000, columns=[x for x in COLUMNS if x in names]):
                for fields in batch.to_pylist():
                    number += 1
                    yield _Found(number, fields)
    except pyarrow.ArrowException as error:
        raise OptionError(f"The input {path} cannot be read: {error}.") from error


def _check_columns(path: Path, names: list[str]) -> None:
    """Refuse a file whose header lacks a column."""
    for name in REQUIRED:
        if name not in names:
            found = ", ".join(map(repr, names)) or "none"
            raise OptionError(f"The input {path} has no column {name!r}. Its columns: {found}.")


READERS: dict[str, Callable[[Path], Iterator[_Found]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
