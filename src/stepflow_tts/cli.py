"""The command `stepflow-tts`: say, batch, serve, wyoming, voices, info, and steps of training.

Exit codes: 0, 1 for a failure, 2 for bad input, 130 when interrupted. Heavy imports are inside the
commands, so that --help, --version and a wrong option answer at once.
"""

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepflow_tts import __version__
from stepflow_tts.errors import InputError, OptionError, StepFlowError, TextError
from stepflow_tts.jobs import command as batch
from stepflow_tts.server import command as serve
from stepflow_tts.server.wyoming import command as wyoming

if TYPE_CHECKING:
    from stepflow_tts.pipeline import StepFlowTTS
    from stepflow_tts.speech import Speech

PROGRESS_SECONDS = 5.0
TRAINING_TASKS = ("teacher", "vocoder", "trajectories", "distill", "refiner", "export")
MODEL_HELP = "a checkpoint's folder or its Hub id, instead of the bundled one"
EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of a command line, by default that of the process."""
    args = build_parser().parse_args(argv)
    debug = getattr(args, "debug", False)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("stepflow_tts").setLevel(logging.DEBUG if debug else args.log_level)
    try:
        args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has left. Nothing more can be said, not even by the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return _fail("Interrupted.", EXIT_INTERRUPTED, debug)
    except InputError as error:
        return _fail(f"Error: {error}", EXIT_BAD_INPUT, debug)
    except (StepFlowError, OSError) as error:
        return _fail(f"Error: {error}", EXIT_FAILURE, debug)
    except Exception as error:
        hint = "Run it again with --debug for the traceback."
        return _fail(f"Error: {type(error).__name__}: {error}\n{hint}", EXIT_FAILURE, debug)
    return 0


def _fail(message: str, code: int, debug: bool) -> int:
    """The exit code, after telling why on standard error."""
    if debug:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands; each sets `run`, the function that does it."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--debug", action="store_true", help="tell more, and show tracebacks")
    parser = argparse.ArgumentParser(
        prog="stepflow-tts", description="Speak any text in any voice.", parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(log_level=logging.WARNING)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_say(commands.add_parser("say", help="speak a text", parents=[common]))
    batch.add_options(commands.add_parser("batch", help="speak a file of texts", parents=[common]))
    serve.add_options(commands.add_parser("serve", help="serve an API", parents=[common]))
    wyoming.add_options(
        commands.add_parser("wyoming", help="serve Home Assistant", parents=[common])
    )

    voices = commands.add_parser("voices", help="list the voices to choose from", parents=[common])
    voices.set_defaults(run=_voices)
    info = commands.add_parser("info", help="count a model's parameters", parents=[common])
    info.add_argument("--json", action="store_true", help="as one JSON object")
    info.set_defaults(run=_info)
    voices.add_argument("--model", metavar="SOURCE", help=MODEL_HELP)
    counted = info.add_mutually_exclusive_group()
    counted.add_argument("--model", metavar="SOURCE", help=MODEL_HELP)
    counted.add_argument("--preset", help="a size instead of a checkpoint: base, nano or test")

    from stepflow_tts.evaluation.command import add_arguments  # itself light

    evaluate = commands.add_parser("evaluate", help="score speech", parents=[common])
    add_arguments(evaluate)
    evaluate.set_defaults(log_level=logging.INFO)
    train = commands.add_parser("train", help="train a network", parents=[common])
    train.add_argument("task", choices=TRAINING_TASKS)
    train.add_argument("--config", type=Path, required=True, metavar="RECIPE.toml")
    train.add_argument(
        "--folder", type=Path, help="for all that comes of it (default: runs/RECIPE)"
    )
    train.set_defaults(run=_train)
    prepare = commands.add_parser("prepare", help="read recordings for training", parents=[common])
    prepare.add_argument(
        "recordings",
        type=Path,
        nargs="+",
        help="manifest.jsonl, folders laid out as LJSpeech, LibriTTS or Emilia, shards",
    )
    prepare.add_argument("--folder", type=Path, required=True, help="to be created")
    prepare.add_argument("--variants", type=int, default=0, help="new speakers per synthetic one")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.set_defaults(run=_prepare)
    align = commands.add_parser("align", help="find recordings' durations", parents=[common])
    align.add_argument("folder", type=Path, help="made by prepare")
    align.add_argument("--aligner", type=Path, help="a trained one, instead of one to be trained")
    align.set_defaults(run=_align)
    for command in (train, prepare, align):
        command.set_defaults(log_level=logging.INFO)
    return parser


def _add_say(say: argparse.ArgumentParser) -> None:
    """The options of `say`."""
    text = say.add_mutually_exclusive_group(required=True)
    text.add_argument("text", nargs="?", help="what to say; - reads it from standard input")
    text.add_argument("--file", type=Path, metavar="TEXT.txt", help="what to say, in UTF-8")
    say.add_argument("--voice", help="a recording, a saved voice, or a name out of `voices`")
    say.add_argument(
        "-o", "--output", default="speech.wav", help="where to (default: %(default)s); - is a pipe"
    )
    say.add_argument("--steps", type=int, default=1, help="network evaluations: 1, 2 or 4")
    say.add_argument("--cfg-strength", type=float, default=0.0, help="of guidance; 0 is none")
    say.add_argument("--speed", type=float, default=1.0, help="2 is twice as fast")
    say.add_argument("--seed", type=_seed, default=0, metavar="N", help="a number, or random")
    say.add_argument("--language", help="en-us or en-gb; by default the voice's")
    say.add_argument(
        "--markup", choices=("plain", "ssml"), default="plain", help="what the text is written in"
    )
    say.add_argument("--lexicon", type=Path, help="a file of words and how they are said")
    say.add_argument("--srt", type=Path, metavar="FILE.srt", help="write subtitles, too")
    say.add_argument("--model", metavar="SOURCE", help=MODEL_HELP)
    say.add_argument("--device", help="cpu, cuda or mps")
    say.set_defaults(run=_say)


def _seed(value: str) -> int | None:
    """A number, or None for `random`."""
    return None if value == "random" else int(value)


def _say(args: argparse.Namespace) -> None:
    """Speak into a file or into standard output."""
    from stepflow_tts.files import write_atomic

    _check_output(args.output)
    if args.srt is not None and not args.srt.parent.is_dir():
        raise OptionError(f"Cannot write {args.srt}: there is no such folder. Create it first.")
    text = _read_text(args)
    tts = _load(args.model, args.device, args.lexicon)
    start = time.perf_counter()
    pieces = tts.stream(
        text,
        args.voice,
        num_steps=args.steps,
        cfg_strength=args.cfg_strength,
        speed=args.speed,
        seed=args.seed,
        language=args.language,
        markup=args.markup,
    )
    speech = _gather(pieces, text, args.markup, args.output)
    seconds = time.perf_counter() - start
    if args.output == "-":
        sys.stdout.buffer.write(speech.to_bytes("wav"))
    else:
        speech.save(args.output)
    if args.srt is not None:
        write_atomic(args.srt, speech.to_srt().encode())
    seed = f", seed {speech.seed}" if args.seed is None else ""
    print(
        f"{args.output}: {speech.duration_seconds:.2f} s of speech in {seconds:.2f} s, "
        f"RTF {seconds / speech.duration_seconds:.3f}{seed}",
        file=sys.stderr,
    )


def _check_output(output: str) -> None:
    """Refuse what cannot be written to before the work is done, not after."""
    from stepflow_tts.audio.io import FORMATS, check_format

    if output == "-":
        if sys.stdout is None or sys.stdout.isatty():
            raise OptionError("-o - writes a WAV file to standard output: pipe it, or name a file.")
        return
    format = Path(output).suffix[1:].lower()
    if format not in FORMATS:
        allowed = ", ".join("." + name for name in FORMATS)
        raise OptionError(f"Cannot write {output!r}: end its name with one of {allowed}.")
    check_format(format)
    if not Path(output).parent.is_dir():
        raise OptionError(f"Cannot write {output!r}: there is no such folder. Create it first.")


def _gather(pieces: "Iterator[Speech]", text: str, markup: str, output: str) -> "Speech":
    """All pieces joined; long texts tell every few seconds how far they are.

    What has been spoken when the user interrupts is kept beside the output, as NAME.partial.wav.
    """
    from stepflow_tts.speech import Speech
    from stepflow_tts.text.split import split

    done: list[Speech] = []
    total = len(split(text)) if markup == "plain" else 0  # of markup only the end tells
    told = time.monotonic()
    try:
        for piece in pieces:
            done.append(piece)
            if (not total or len(done) < total) and time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                spoken = sum(p.duration_seconds for p in done)
                count = f"{len(done)} of {total}" if total else f"{len(done)}"
                print(f"{count} chunks, {spoken:.0f} s of speech", file=sys.stderr)
    except KeyboardInterrupt:
        if done and output != "-":
            kept = Speech.join(done).save(Path(output).with_suffix(".partial.wav"))
            print(f"{kept}: what was spoken so far", file=sys.stderr)
        raise
    return Speech.join(done, text)


def _read_text(args: argparse.Namespace) -> str:
    """The text of `say`, from wherever it comes."""
    if args.file is None and args.text != "-":
        return str(args.text)
    if args.file is None and sys.stdin is None:
        raise TextError("Standard input is closed: pipe the text in, or name it with --file.")
    try:
        data = sys.stdin.buffer.read() if args.file is None else args.file.read_bytes()
    except OSError as error:
        raise TextError(f"Cannot read the text {args.file}: {error.strerror}.") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        name = args.file or "standard input"
        raise TextError(
            f"The text in {name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}. "
            "Convert it with iconv -t UTF-8."
        ) from error


def _load(
    source: str | None, device: str | None = None, lexicon: Path | None = None
) -> "StepFlowTTS":
    """The checkpoint called `source`, ready to speak."""
    from stepflow_tts.pipeline import StepFlowTTS

    return StepFlowTTS.from_pretrained(source, device=device, lexicon=lexicon)


def _voices(args: argparse.Namespace) -> None:
    """Name, language and description of each, the default first."""
    for name, voice in _load(args.model).voices.items():
        print(f"{name:<16}{voice.language:<8}{voice.description}".rstrip())


def _info(args: argparse.Namespace) -> None:
    """The parameters of teacher and student, part by part."""
    from stepflow_tts.checkpoint_files import CONFIG_FILE, read_config
    from stepflow_tts.hub import resolve
    from stepflow_tts.info import preset_config, summarize

    if args.preset is None:
        config = read_config(resolve(args.model) / CONFIG_FILE)
    else:
        config = preset_config(args.preset)
    summary = summarize(config)
    if args.json:
        print(json.dumps(summary, indent=2))
        return
    for key, value in summary.items():
        name = key.replace("_", " ")
        if isinstance(value, dict):
            print(name)
            for part, count in value.items():
                print(f"  {part.replace('_', ' '):<24}{count:>12,}")
        elif isinstance(value, list):
            print(f"{name:<26}{', '.join(map(str, value)):>12}")
        else:
            print(f"{name:<26}{value:>12{',' if 'parameters' in name else ''}}")


def _train(args: argparse.Namespace) -> None:
    """One task of a recipe; an interrupted run goes on where it was."""
    from stepflow_tts.training.recipe_files import read_tables

    tables = read_tables(args.config)
    from stepflow_tts.training.run import run  # loads PyTorch

    run(args.task, tables, args.folder or Path("runs") / args.config.stem)


def _prepare(args: argparse.Namespace) -> None:
    """Recordings to memory-mapped mels, audio and tokens."""
    from stepflow_tts.training.prepare import prepare

    counts = prepare(args.recordings, args.folder, variants=args.variants, seed=args.seed)
    for reason, count in counts.items():
        print(f"{reason}: {count}")


def _align(args: argparse.Namespace) -> None:
    """Durations for the recordings in a prepared folder."""
    from stepflow_tts.training.align import align

    report = align(args.folder, aligner=args.aligner)
    for name, c in (("clean", report.check), ("degraded", report.degraded)):
        if c is None:
            continue
        print(
            f"{name}: {c.within_30_ms:.1%} of {c.num_boundaries} boundaries within 30 ms, "
            f"median {c.median_ms:.0f} ms"
        )
    print(f"aligned: {report.num_aligned}")
    for reason, count in report.dropped.items():
        print(f"dropped, {reason}: {count}")
