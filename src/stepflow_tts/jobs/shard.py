"""What one process does of a job: it loads the model and speaks shard after shard."""

import json
import os
import socket
import tarfile
from io import BytesIO
from typing import NamedTuple
from urllib.parse import quote

from stepflow_tts.errors import OptionError, StepFlowError
from stepflow_tts.files import open_atomic, write_atomic
from stepflow_tts.jobs.job import SHARDS_FOLDER, Job, check_same, weights_digest
from stepflow_tts.jobs.rows import Row, Shard
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.speech import Speech

# What one row may meet and another does not. All else, such as a full disk, ends the job.
ERRORS_OF_A_ROW = (StepFlowError, ValueError, TypeError, LookupError, ArithmeticError)


class Done(NamedTuple):
    """A shard that is there."""

    num_rows: int
    audio_seconds: float  # 0 if it was there before


class ShardSpeaker:
    """A loaded model that speaks a job's shards."""

    def __init__(self, job: Job) -> None:
        """Load the model and see that it is the job's, as is the folder.

        Raises:
            OptionError: this machine has another folder there, or other weights.
            CheckpointError: the model cannot be loaded.
        """
        check_same(job)
        if weights_digest(job.source) != job.settings.weights_sha256:
            raise OptionError(
                f"{socket.gethostname()} has other weights for {job.settings.model!r} than those "
                "of the job. Install the same version on every machine."
            )
        self._job = job
        self._tts = StepFlowTTS.from_pretrained(job.source, device=job.device)

    def __call__(self, shard: Shard) -> Done:
        """Speak a shard, unless it is done."""
        if self._job.lines_file(shard.number).is_file():
            return Done(len(shard.rows), 0.0)
        return speak_shard(self._tts, shard, self._job)


def speak_shard(tts: StepFlowTTS, shard: Shard, job: Job) -> Done:
    """A shard's audio and then its lines, each there whole or not at all.

    Two processes may do this at the same time: what the last one writes replaces the same.

    Raises:
        OSError: the system could not write (no permission, full disk).
    """
    lines = []
    audio_seconds = 0.0
    with (
        open_atomic(job.audio_file(shard.number)) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for row in shard.rows:
            line: dict[str, object] = {"row": row.number, "id": row.id, "text": row.text}
            line["voice"] = row.voice or job.settings.voice
            lines.append(line)
            try:
                speech = None if row.reason else speak_row(tts, row, job)
            except ERRORS_OF_A_ROW as error:
                known = isinstance(error, StepFlowError)
                line["reason"] = str(error) if known else f"{type(error).__name__}: {error}"
                continue
            if speech is None:
                line["reason"] = row.reason
                continue
            name = member_name(row.id)
            about = {**line, "speaker": line["voice"], **json.loads(speech.to_json())}
            _add(tar, f"{name}.{job.settings.format}", speech.to_bytes(job.settings.format))
            _add(tar, f"{name}.json", json.dumps(about, ensure_ascii=False).encode())
            line["shard"] = f"{SHARDS_FOLDER}/{job.audio_file(shard.number).name}"
            line["audio"] = f"{name}.{job.settings.format}"
            line["duration_seconds"] = speech.duration_seconds
            audio_seconds += speech.duration_seconds
    if not audio_seconds:  # readers of shards take an empty one for a broken one
        job.audio_file(shard.number).unlink(missing_ok=True)
    # ASCII: what was rejected may not be Unicode.
    data = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomic(job.lines_file(shard.number), data.encode())
    return Done(len(shard.rows), audio_seconds)


def speak_row(tts: StepFlowTTS, row: Row, job: Job) -> Speech:
    """What a row says, in its voice.

    Raises:
        StepFlowError: it cannot be spoken, or not in this voice.
    """
    voice = row.voice or job.settings.voice
    recording = job.voices / voice
    if voice not in tts.voices and not os.path.isfile(recording):  # also of names that are too long
        raise OptionError(
            f"There is no voice {voice!r}: no file of this name beside the input, and none of "
            f"{', '.join(tts.voices)}."
        )
    s = job.settings
    return tts.synthesize(
        row.text,
        voice if voice in tts.voices else recording,
        num_steps=s.num_steps,
        speed=s.speed,
        seed=s.seed,
    )


def member_name(id: str) -> str:
    """An id as a file's name without extension, for each id another; plain ones stay as they are.

    Readers of WebDataset take a name up to its first dot.
    """
    return quote(id, safe="").replace(".", "%2E")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file, the same in every run."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))
