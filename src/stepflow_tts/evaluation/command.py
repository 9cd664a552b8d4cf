"""The command `stepflow-tts evaluate`. Heavy imports are inside the functions."""

import argparse
import datetime
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stepflow_tts import __version__
from stepflow_tts.errors import OptionError

if TYPE_CHECKING:
    from stepflow_tts.evaluation.report import Result
    from stepflow_tts.evaluation.run import System


# What is given for something that is not done would be ignored; None = not given.
OF_SPEAKING = (
    "model",
    "steps",
    "cfg_strength",
    "speed",
    "seed",
    "device",
    "versus",
    "versus_steps",
    "versus_cfg_strength",
    "keep",
)
OF_SCORING = ("name", "limit", "metrics", "whisper", "speaker_encoder", "dnsmos", "distillmos")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "pairs", type=Path, nargs="?", metavar="PAIRS.tsv", help="to speak: TEXT <tab> REFERENCE"
    )
    what.add_argument(
        "--wavs",
        type=Path,
        metavar="LIST.tsv",
        help="made before: WAV [<tab> TEXT [<tab> REFERENCE]], or a folder of recordings",
    )
    what.add_argument(
        "--report", type=Path, metavar="REPORT.json", help="evaluated before, to be shown again"
    )
    spoken = parser.add_argument_group("what speaks")
    spoken.add_argument("--model", metavar="SOURCE", help="folder or Hub id (default: the bundle)")
    spoken.add_argument("--steps", type=int, metavar="N", help="default: 1")
    spoken.add_argument("--cfg-strength", type=float, metavar="W", help="of guidance; default: 0")
    spoken.add_argument("--speed", type=float, help="default: 1")
    spoken.add_argument("--seed", type=int, metavar="N", help="default: 0")
    spoken.add_argument("--device", help="cpu, cuda or mps")
    spoken.add_argument(
        "--versus",
        metavar="SOURCE",
        help="a second system in the same run, sentence by sentence in turn (default: --model)",
    )
    spoken.add_argument("--versus-steps", type=int, metavar="N", help="default: 1")
    spoken.add_argument("--versus-cfg-strength", type=float, metavar="W", help="default: 0")
    parser.add_argument("--name", help="of the system in the table")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N utterances")
    scores = parser.add_argument_group("scores")
    scores.add_argument(
        "--metrics",
        help="some of wer,sim,dnsmos,distillmos (default: all), or speed, which alone needs no model",
    )
    scores.add_argument("--whisper", help="size, folder or Hub id of a recognizer (default: base)")
    for name, what_for in (
        ("speaker-encoder", "GE2E weights"),
        ("dnsmos", "sig_bak_ovr.onnx"),
        ("distillmos", "Distill-MOS weights"),
    ):
        scores.add_argument(
            f"--{name}", metavar="FILE", help=f"{what_for}: a file, or org/name/file on the Hub"
        )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="REPORT.json",
        help="another system's, of the same list, for paired differences; may be repeated",
    )
    out.add_argument("--keep", type=Path, metavar="FOLDER", help="for the wavs that are spoken")
    out.add_argument("--json", type=Path, metavar="REPORT.json", help="everything, utterances too")
    out.add_argument("--chart", type=Path, metavar="CHART.png", help="the table as a picture")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Speak, score, compare and tell."""
    from stepflow_tts.evaluation.report import compare, format_table, read_results, to_json
    from stepflow_tts.files import write_atomic

    _check(args)
    others = [result for path in args.against for result in read_results(path)]
    results, about = _results(args)
    comparisons = [compare(results[0], other) for other in (*results[1:], *others)]
    print(format_table([*results, *others], comparisons))
    if args.json is not None:
        write_atomic(args.json, (to_json(results, comparisons, about) + "\n").encode())
    if args.chart is not None:
        from stepflow_tts.evaluation.chart import draw

        write_atomic(args.chart, draw([*results, *others]))


def _check(args: argparse.Namespace) -> None:
    """Refuse what would only fail after the work is done, or would be ignored."""
    from stepflow_tts.evaluation.sources import import_package

    for path in (args.json, args.chart):
        if path is not None and not path.parent.is_dir():
            raise OptionError(f"Cannot write {path}: there is no folder {path.parent}.")
    if args.chart is not None:
        if args.chart.suffix.lower() != ".png":
            raise OptionError(f"The chart is a PNG; {args.chart} does not end with .png.")
        import_package("matplotlib", "The chart")
    useful: set[str] = set()
    if args.pairs is not None:
        useful |= set(OF_SPEAKING)
    if args.report is None:
        useful |= set(OF_SCORING)
    for name in (*OF_SPEAKING, *OF_SCORING):
        if name not in useful and getattr(args, name) is not None:
            what = "a report shown again" if args.report is not None else "recordings"
            raise OptionError(f"--{name.replace('_', '-')} has no use for {what}: leave it out.")
    if args.wavs is not None and args.metrics == "speed":
        raise OptionError("Recordings have no speed: name other --metrics, or give PAIRS.tsv.")
    if args.report is not None and args.json is not None and args.json == args.report:
        raise OptionError(f"--json would replace the report {args.report}; name another file.")


def _results(
    args: argparse.Namespace,
) -> "tuple[list[Result], dict[str, str | int | dict[str, str | None]]]":
    """What was evaluated, and what is to be told of how."""
    import dataclasses

    import torch

    from stepflow_tts.evaluation import lists
    from stepflow_tts.evaluation.report import Result, read_results
    from stepflow_tts.evaluation.run import evaluate_systems, score_all, shown
    from stepflow_tts.evaluation.scoring import SCORES, Sources, load_scorers

    if args.report is not None:
        return read_results(args.report), {"reshown": args.report.name}
    sources = Sources(args.whisper or "base", args.speaker_encoder, args.dnsmos, args.distillmos)
    scores = SCORES if args.metrics is None else tuple(args.metrics.split(","))
    about: dict[str, str | int | dict[str, str | None]] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "stepflow_tts": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count() or 0,
        "models": {
            name: shown(source) if source else None
            for name, source in dataclasses.asdict(sources).items()
        },
    }
    if args.wavs is not None:
        recordings = lists.read_recordings(args.wavs, args.limit)
        scorers = load_scorers(scores, sources)
        name = args.name or args.wavs.resolve().stem
        return [Result(name, score_all(recordings, scorers))], about
    pairs = lists.read_pairs(args.pairs, args.limit)
    systems = _systems(args)
    about["device"] = str(systems[0].tts.device)
    scorers = load_scorers(scores, sources)
    with _folder(args.keep) as folder:
        return evaluate_systems(systems, pairs, scorers, folder), about


def _systems(args: argparse.Namespace) -> "list[System]":
    """What speaks: one, or two that are compared."""
    from stepflow_tts.evaluation.run import load_system
    from stepflow_tts.evaluation.speed import Settings

    common = {"speed": args.speed, "seed": args.seed}
    first = {"num_steps": args.steps, "cfg_strength": args.cfg_strength}
    second = {"num_steps": args.versus_steps, "cfg_strength": args.versus_cfg_strength}
    calls = [(args.model, args.name, first)]
    if any(value is not None for value in (args.versus, *second.values())):
        calls.append((args.versus or args.model, None, second))
    return [
        load_system(
            source,
            Settings(**{key: x for key, x in (common | own).items() if x is not None}),
            name=name,
            device=args.device,
        )
        for source, name, own in calls
    ]


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where the wavs go: a folder that stays, or one that goes."""
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="stepflow-evaluate-") as folder:
        yield Path(folder)
