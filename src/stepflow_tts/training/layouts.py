"""Where recordings lie: each layout becomes the lines of a manifest, read one after the other.

manifest   manifest.jsonl, one JSON object a line (see `prepare`)
LJSpeech   metadata.csv (id|text|normalized text) and wavs/
LibriTTS   SPEAKER/CHAPTER/NAME.wav, NAME.normalized.txt beside it
Emilia     WebDataset shards: *.tar of NAME.mp3 and NAME.json, read as a stream
"""

import csv
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stepflow_tts.errors import InputError

Fields = dict[str, Any]
SHARD_AUDIO = ("mp3", "flac", "wav", "ogg", "opus")
LAYOUTS = (
    "a manifest.jsonl, or a folder with manifest.jsonl, with metadata.csv (LJSpeech), with "
    "*.normalized.txt beside its recordings (LibriTTS), or with shards *.tar (Emilia)"
)


class Recording(NamedTuple):
    """One utterance as it was found."""

    audio: Path | bytes
    fields: Fields  # of a manifest's line


class Source(NamedTuple):
    """Recordings that are read in one go."""

    path: Path
    corpus: str
    read: Callable[[Path], Iterator[Recording]]


def find_sources(path: Path) -> list[Source]:
    """The sources at `path`: one, or of a folder of shards each of them, in order.

    Raises:
        InputError: nothing there has a layout that is known.
    """
    if path.suffix == ".tar":
        return [Source(path, path.resolve().parent.name, read_shard)]
    if path.suffix == ".jsonl" or path.is_file():
        return [Source(path, path.resolve().parent.name, read_manifest)]
    name = path.resolve().name
    if (path / "manifest.jsonl").is_file():
        return [Source(path / "manifest.jsonl", name, read_manifest)]
    if (path / "metadata.csv").is_file():
        return [Source(path, name, read_ljspeech)]
    shards = sorted(path.rglob("*.tar"))
    if shards:
        return [Source(shard, name, read_shard) for shard in shards]
    if next(path.rglob("*.normalized.txt"), None):
        return [Source(path, name, read_libritts)]
    raise InputError(f"{path} holds no recordings that can be found. Name {LAYOUTS}.")


def read_manifest(path: Path) -> Iterator[Recording]:
    """The lines of a manifest.

    Raises:
        InputError: it cannot be read, or a line is not what it must be.
    """
    try:
        # Not splitlines: JSON may hold U+2028 and its like as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The manifest {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(fields, dict):
            raise InputError(f"{path}, line {number} is not a JSON object: {line[:80]}")
        lacking = [key for key in ("audio", "speaker", "text") if key not in fields]
        if lacking:
            raise InputError(f"{path}, line {number} lacks {lacking[0]!r}.")
        yield Recording(path.resolve().parent / fields["audio"], fields)


def read_ljspeech(folder: Path) -> Iterator[Recording]:
    """The lines of metadata.csv; all are one speaker, called as the folder is.

    Raises:
        InputError: it cannot be read, or a line has no text.
    """
    path = folder / "metadata.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) < 2 or not row[-1].strip():
            raise InputError(f"{path}, line {number} is not id|text|normalized text: {row}")
        name = f"{row[0].removesuffix('.wav')}.wav"
        fields = {"id": row[0], "audio": f"wavs/{name}", "text": row[-1]}
        yield Recording(folder / "wavs" / name, fields | {"speaker": folder.resolve().name})


def read_libritts(folder: Path) -> Iterator[Recording]:
    """Every recording with a text beside it; the speaker is the first part of its name.

    Raises:
        InputError: a text cannot be read.
    """
    for path in sorted(folder.rglob("*.normalized.txt")):
        name = path.name.removesuffix(".normalized.txt")
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}.") from error
        fields = {"id": name, "audio": f"{name}.wav", "text": text}
        yield Recording(path.with_name(f"{name}.wav"), fields | {"speaker": name.split("_", 1)[0]})


def read_shard(path: Path) -> Iterator[Recording]:
    """The pairs of recording and JSON of one tar file, without unpacking it.

    Raises:
        InputError: it is not whole, or a JSON in it is not what it must be.
    """
    parts: dict[str, bytes] = {}
    key, count = "", 0
    try:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None:
                    continue
                name, _, extension = member.name.rpartition(".")
                if name != key:
                    key, parts = name, {}
                parts[extension.lower()] = file.read()
                audio = next((parts[e] for e in SHARD_AUDIO if e in parts), None)
                if audio is not None and "json" in parts:
                    yield Recording(audio, _shard_fields(path, name, parts["json"]))
                    key, parts, count = "", {}, count + 1
            # tarfile takes an archive that was cut off between two members for a whole one
            if path.stat().st_size < tar.offset + tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"The shard {path} cannot be read beyond its first {count} recordings: {error}. "
            "Download it again, or leave it out."
        ) from error
    if not count:
        raise InputError(f"The shard {path} holds no pair NAME.mp3 and NAME.json.")


def _shard_fields(path: Path, name: str, data: bytes) -> Fields:
    """The fields of a manifest's line out of a shard's JSON."""
    try:
        found = json.loads(data)
        fields = {"id": name, "audio": name, "text": found["text"], "speaker": found["speaker"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name}.json in the shard {path} lacks text or speaker, or is not JSON: {error!r}."
        ) from error
    return fields | {"language": found.get("language", "en")}
