"""Speaks a list of sentences in a list of voices, and keeps a record of how well it went.

    python benchmarks/voice.py speak PAIRS.tsv OUT [--model SOURCE] [--steps N] [--cfg-strength W] [--limit N]
    (score OUT/list.tsv with any scorer that writes {"total": {...}, "rows": [{"words", "heard", ...}]})
    python benchmarks/voice.py record OUT SCORES.json --hours 3.5 --updates 24000 [--note "..."]

PAIRS.tsv: TEXT <tab> REFERENCE, the reference relative to the file. `speak` writes one wav a line,
OUT/list.tsv (WAV, TEXT, REFERENCE) and OUT/speed.json: the whole call's RTF with the voice encoded
before, network evaluations as counted by a hook, threads and torch version. `record` appends one line
to benchmarks/results/voice.jsonl.
"""

import argparse
import datetime
import json
import re
import statistics
import subprocess
import time
from pathlib import Path

import torch

from stepflow_tts import StepFlowTTS

RESULTS = Path(__file__).parent / "results" / "voice.jsonl"


def speak(args: argparse.Namespace) -> None:
    tts = StepFlowTTS.from_pretrained(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    evaluations = []
    tts._checkpoint.model.dit.register_forward_hook(lambda *_: evaluations.append(1))
    lines = args.pairs.read_text(encoding="utf-8").splitlines()[: args.limit]
    pairs = [line.split("\t") for line in lines if line.strip()]
    options = {"num_steps": args.steps, "cfg_strength": args.cfg_strength, "seed": args.seed}
    rtfs, rows, voices = [], [], {}
    for i, (text, name) in enumerate(pairs):
        reference = (args.pairs.parent / name).resolve()
        if reference not in voices:
            voices[reference] = tts.encode_voice(reference)
            tts.synthesize(
                "Ready.", voices[reference], **options
            )  # its keys and values, outside the timing
        evaluations.clear()
        start = time.perf_counter()
        speech = tts.synthesize(text, voices[reference], **options)
        rtfs.append((time.perf_counter() - start) / speech.duration_seconds)
        wav = args.out / f"{i:03d}.wav"
        speech.save(wav)
        rows.append(f"{wav.resolve()}\t{text}\t{reference}\n")
    (args.out / "list.tsv").write_text("".join(rows), encoding="utf-8")
    speed = {
        "model": args.model or "bundled",
        "steps": args.steps,
        "cfg_strength": args.cfg_strength,
        "nfe_last_call": len(evaluations),
        "rtf_median": round(statistics.median(rtfs), 4),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    (args.out / "speed.json").write_text(json.dumps(speed, indent=1))
    print(json.dumps(speed))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def deletions_insertions(text: str, heard: str) -> tuple[int, int]:
    """Of a shortest edit from what was written to what was heard."""
    a, b = words_of(text), words_of(heard)
    row = [(j, 0, j) for j in range(len(b) + 1)]  # (cost, deletions, insertions)
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], (i, i, 0)
        for j, y in enumerate(b, 1):
            change = (diagonal[0] + (x != y), diagonal[1], diagonal[2])
            delete = (row[j][0] + 1, row[j][1] + 1, row[j][2])
            insert = (row[j - 1][0] + 1, row[j - 1][1], row[j - 1][2] + 1)
            diagonal, row[j] = row[j], min(change, delete, insert)
    return row[-1][1:]


def record(args: argparse.Namespace) -> None:
    scores = json.loads(args.scores.read_text())
    texts = [line.split("\t")[1] for line in (args.out / "list.tsv").read_text().splitlines()]
    edits = [
        deletions_insertions(t, r["heard"]) for t, r in zip(texts, scores["rows"], strict=True)
    ]
    num_words = sum(r["words"] for r in scores["rows"])
    line = {
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.check_output(
            ["git", "rev-parse", "--short", "HEAD"], text=True
        ).strip(),
        "hours": args.hours,
        "updates": args.updates,
        "note": args.note,
        **json.loads((args.out / "speed.json").read_text()),
        **scores["total"],
        "deletions_per_1000": round(1000 * sum(d for d, _ in edits) / num_words, 1),
        "insertions_per_1000": round(1000 * sum(i for _, i in edits) / num_words, 1),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    s = commands.add_parser("speak")
    s.add_argument("pairs", type=Path)
    s.add_argument("out", type=Path)
    s.add_argument("--model")
    s.add_argument("--steps", type=int, default=1)
    s.add_argument("--cfg-strength", type=float, default=0.0)
    s.add_argument("--seed", type=int, default=0)
    s.add_argument("--limit", type=int)
    s.set_defaults(run=speak)
    r = commands.add_parser("record")
    r.add_argument("out", type=Path)
    r.add_argument("scores", type=Path)
    r.add_argument("--hours", type=float, required=True, help="of training, student's included")
    r.add_argument("--updates", type=int, required=True)
    r.add_argument("--note", default="")
    r.set_defaults(run=record)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
