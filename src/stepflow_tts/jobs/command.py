"""The command `stepflow-tts batch`. Heavy imports are inside the functions."""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stepflow_tts import __version__
from stepflow_tts.errors import InputError, MissingDependencyError, OptionError
from stepflow_tts.jobs.rows import PIP_COMMAND, Shard, check_input, digest, read_rows, read_shards

if TYPE_CHECKING:
    from stepflow_tts.jobs.job import Job
    from stepflow_tts.jobs.shard import Done

PROGRESS_SECONDS = 10.0  # between lines that are not for a terminal


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `batch`."""
    parser.add_argument(
        "input",
        type=Path,
        help="rows with id, text and, if you like, voice: .jsonl, .csv, .parquet",
    )
    parser.add_argument("output", type=Path, help="a folder; one that was begun goes on")
    parser.add_argument(
        "--voice", help="of rows that name none: a recording, or a name out of `voices`"
    )
    parser.add_argument("--format", default="flac", help="of the audio (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="network evaluations: 1, 2 or 4")
    parser.add_argument("--speed", type=float, default=1.0, help="2 is twice as fast")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--shard-rows", type=int, default=200, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="that speak, or Ray's actors (default: one a core; on a GPU one)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="speak on a Ray cluster: that of RAY_ADDRESS, of this machine, or of the address",
    )
    parser.add_argument("--model", metavar="SOURCE", help="a checkpoint's folder or its Hub id")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Speak all rows that are not spoken yet, then write the manifest.

    Raises:
        InputError: the input, an option or the folder cannot be used, or no row could be spoken.
        MissingDependencyError: the extra is not installed.
        SynthesisError: a process died.
        OSError: the system could not write.
    """
    _check(args)
    from stepflow_tts.jobs.job import MANIFEST_FILE, REJECTS_FILE, begin, finish

    job = _job(args)
    begin(job)
    progress = _Progress(job.settings.num_rows)
    for done in _speak(args, job, progress):
        progress.add(done)
    progress.end()
    totals = finish(job)
    print(
        f"{args.output / MANIFEST_FILE}: {totals.num_spoken} rows, "
        f"{totals.audio_seconds / 3600:.2f} h of speech",
        file=sys.stderr,
    )
    if totals.num_rejected:
        print(f"{args.output / REJECTS_FILE}: {totals.num_rejected} rows", file=sys.stderr)
    if not totals.num_spoken:
        raise InputError(f"No row could be spoken; {args.output / REJECTS_FILE} tells why.")


def _check(args: argparse.Namespace) -> None:
    """Refuse what would only fail after the model is loaded."""
    from stepflow_tts.audio.io import check_format

    check_input(args.input)
    check_format(args.format)
    for name in ("shard_rows", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more.")
    if args.ray is not None and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError(f"--ray needs Ray: {PIP_COMMAND}")


def _job(args: argparse.Namespace) -> "Job":
    """The job that the options describe, checked by the model."""
    from stepflow_tts.jobs.job import Job, Settings, weights_digest
    from stepflow_tts.pipeline import StepFlowTTS

    num_rows = sum(1 for _ in read_rows(args.input))
    if not num_rows:
        raise OptionError(f"The input {args.input} has no rows.")
    source, voice = args.model, args.voice
    if source is not None and os.path.exists(os.path.expanduser(source)):
        source = str(Path(source).expanduser().resolve())
    with StepFlowTTS.from_pretrained(source, device=args.device) as tts:
        if voice is None and tts.voices:
            voice = next(iter(tts.voices))
        elif voice not in tts.voices and voice is not None:
            voice = str(Path(voice).resolve()) if os.path.exists(voice) else voice
        # Refuses at once what every row would be refused for; speaks nothing.
        tts.stream("Hello.", voice, num_steps=args.steps, speed=args.speed, seed=args.seed)
    settings = Settings(
        input=args.input.name,
        input_sha256=digest(args.input),
        num_rows=num_rows,
        shard_rows=args.shard_rows,
        model="bundled" if source is None else Path(source).name,
        weights_sha256=weights_digest(source),
        voice=voice,
        format=args.format,
        num_steps=args.steps,
        speed=args.speed,
        seed=args.seed,
        stepflow_tts=__version__,
    )
    return Job(args.output.resolve(), args.input.resolve().parent, source, args.device, settings)


def _speak(args: argparse.Namespace, job: "Job", progress: "_Progress") -> "Iterator[Done]":
    """The shards that are not done yet, as they become so."""
    shards = _left(read_shards(args.input, args.shard_rows), job, progress)
    if args.ray is not None:
        from stepflow_tts.jobs.on_ray import speak_on_ray

        return speak_on_ray(job, shards, args.ray, args.processes)
    from stepflow_tts.jobs.local import count_cpus, speak_locally
    from stepflow_tts.options import check_device, default_device

    device = default_device() if args.device is None else check_device(args.device)
    default = count_cpus() if device.type == "cpu" else 1
    return speak_locally(job, shards, args.processes or min(default, job.settings.num_shards))


def _left(shards: Iterator[Shard], job: "Job", progress: "_Progress") -> Iterator[Shard]:
    """Those that have not been done before."""
    for shard in shards:
        if job.lines_file(shard.number).is_file():
            progress.skip(len(shard.rows))
        else:
            yield shard


class _Progress:
    """How far a job is: one line that changes on a terminal, else a line now and then."""

    def __init__(self, total: int) -> None:
        """Of so many rows."""
        self._total, self._before, self._now = total, 0, 0
        self._audio_seconds = 0.0
        self._start = self._told = time.monotonic()

    def skip(self, num_rows: int) -> None:
        """Rows that were done before."""
        self._before += num_rows

    def add(self, done: "Done") -> None:
        """Rows that are done now."""
        self._now += done.num_rows
        self._audio_seconds += done.audio_seconds
        if sys.stderr.isatty():
            print(f"\r{self._line()}\x1b[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line for what comes next."""
        if sys.stderr.isatty() and self._now:
            print(file=sys.stderr)

    def _line(self) -> str:
        """Rows, speech, and how long it will take."""
        seconds = time.monotonic() - self._start
        done = self._before + self._now
        left = seconds / self._now * (self._total - done)
        return (
            f"{done} of {self._total} rows ({done / self._total:.0%}), "
            f"{self._audio_seconds / 3600:.2f} h of speech in {_clock(seconds)}, "
            f"{_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    """1:02:03 for hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
