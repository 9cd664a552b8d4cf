"""A job's folder, and what is in it when.

settings.json                what is spoken and how; a job goes on only with the same
shards/shard-000012.tar      audio and times of some rows: ID.flac and ID.json
shards/shard-000012.jsonl    each of these rows, spoken or not; then they are done
manifest.jsonl               at the end: every row that was spoken
rejects.jsonl                at the end: every row that was not, with the reason
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stepflow_tts.errors import OptionError, SynthesisError
from stepflow_tts.files import TEMPORARY, open_atomic, write_atomic
from stepflow_tts.hub import resolve

SETTINGS_FILE = "settings.json"
MANIFEST_FILE, REJECTS_FILE = "manifest.jsonl", "rejects.jsonl"
SHARDS_FOLDER = "shards"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides what is spoken."""

    input: str
    input_sha256: str
    num_rows: int
    shard_rows: int
    model: str
    weights_sha256: str
    voice: str
    format: str
    num_steps: int
    speed: float
    seed: int
    stepflow_tts: str  # the version

    @property
    def num_shards(self) -> int:
        """Of the rows, the last one perhaps smaller."""
        return -(-self.num_rows // self.shard_rows)


@dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to speak shards, on this machine or on another."""

    output: Path  # absolute
    voices: Path  # absolute: where recordings that rows name are looked for
    source: str | None  # of the checkpoint
    device: str | None
    settings: Settings

    def audio_file(self, number: int) -> Path:
        """Of a shard."""
        return self.output / SHARDS_FOLDER / f"shard-{number:06d}.tar"

    def lines_file(self, number: int) -> Path:
        """Of a shard; there when it is done."""
        return self.output / SHARDS_FOLDER / f"shard-{number:06d}.jsonl"


class Totals(NamedTuple):
    """What became of all rows."""

    num_spoken: int
    num_rejected: int
    audio_seconds: float


def weights_digest(source: str | None) -> str:
    """The SHA-256 of a checkpoint: its config, weights and voices.

    Raises:
        CheckpointError: there is none at `source`.
    """
    folder = resolve(source)
    total = hashlib.sha256()
    for path in sorted((folder / "config.json", *folder.rglob("*.safetensors"))):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def begin(job: Job) -> None:
    """Make the job's folder; one that is there already must be of the same job.

    Raises:
        OptionError: it is of another, or no job's at all.
    """
    folder = job.output
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file; name a folder to write to.")
    if folder.is_dir() and not (folder / SETTINGS_FILE).exists():
        other = sorted(path.name for path in folder.iterdir() if not path.match(TEMPORARY))
        if other:
            raise OptionError(
                f"{folder} is of no job but holds {other[0]!r}; name a new or an empty folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SETTINGS_FILE).exists():
        text = json.dumps(dataclasses.asdict(job.settings), indent=2, ensure_ascii=False)
        write_atomic(folder / SETTINGS_FILE, text.encode() + b"\n")
    check_same(job)
    (folder / SHARDS_FOLDER).mkdir(exist_ok=True)


def check_same(job: Job) -> None:
    """Refuses a folder with other settings than the job's.

    Raises:
        OptionError: they differ, or there are none.
    """
    path = job.output / SETTINGS_FILE
    try:
        found: dict[str, object] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{path} cannot be read: {error}. Name a folder that every machine of the job sees."
        ) from error
    ours = dataclasses.asdict(job.settings)
    differing = [key for key in ours if found.get(key) != ours[key]]
    if differing:
        told = "; ".join(f"{key} was {found.get(key)!r} and is {ours[key]!r}" for key in differing)
        raise OptionError(
            f"{job.output} was begun otherwise: {told}. Go on as it was begun, or name a new folder."
        )


def finish(job: Job) -> Totals:
    """Write the manifest and the rejects of a job whose shards are all done.

    Raises:
        SynthesisError: a shard's files are not what they were when it was done.
    """
    ids: set[str] = set()
    num_rejected, audio_seconds = 0, 0.0
    with (
        open_atomic(job.output / MANIFEST_FILE) as manifest,  # the last one to be there
        open_atomic(job.output / REJECTS_FILE) as rejects,
    ):
        for line in _lines(job):
            if "reason" in line:
                num_rejected += 1
                rejects.write(json.dumps(line).encode() + b"\n")  # ASCII: it may be no Unicode
            else:
                ids.add(line["id"])
                audio_seconds += line["duration_seconds"]
                manifest.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if len(ids) + num_rejected != job.settings.num_rows:
            raise SynthesisError(
                f"{job.output} holds {len(ids)} ids and {num_rejected} rejected rows, of "
                f"{job.settings.num_rows}: its shards were changed. Name a new folder."
            )
    for folder in (job.output, job.output / SHARDS_FOLDER):
        for path in folder.glob(TEMPORARY):  # of processes that were killed
            path.unlink(missing_ok=True)
    return Totals(len(ids), num_rejected, audio_seconds)


def _lines(job: Job) -> Iterator[dict[str, Any]]:
    """What became of each row, in the order of the input."""
    for number in range(job.settings.num_shards):
        with open(job.lines_file(number), encoding="utf-8", newline="\n") as file:
            lines: list[dict[str, Any]] = [json.loads(line) for line in file]
        if any("audio" in line for line in lines) and not job.audio_file(number).is_file():
            raise SynthesisError(
                f"{job.audio_file(number)} is missing. Delete {job.lines_file(number).name} beside "
                "it and run the command again, which then speaks these rows anew."
            )
        yield from lines
