"""Keeps a record of how well a voice did: one line in benchmarks/results/voice.jsonl.

    stepflow-tts evaluate PAIRS.tsv [--model SOURCE] [--steps N] --json REPORT.json
    python benchmarks/voice.py REPORT.json --hours 3.5 --updates 24000 [--note "..."]

PAIRS.tsv: TEXT <tab> REFERENCE. Where the references' names begin with different words, such as real_ and
synthetic_, each group has totals of its own.
"""

import argparse
import datetime
import json
import subprocess
from pathlib import Path

from stepflow_tts.evaluation.report import Result, Row, read_results, summarize

RESULTS = Path(__file__).parent / "results" / "voice.jsonl"
NAMES = {
    "wer": ("wer_percent", 2),
    "sim": ("sim", 4),
    "dnsmos": ("dnsmos_ovrl", 3),
    "distillmos": ("distill_mos", 3),
}
MORE_NAMES = {
    "deletions": ("deletions_per_1000", 1),
    "insertions": ("insertions_per_1000", 1),
    "nfe": ("nfe_last_call", 0),
    "rtf": ("rtf_median", 4),
}


def totals(rows: list[Row], names: dict[str, tuple[str, int]]) -> dict[str, float]:
    """The values of the metrics in `names`, by the names and with the decimals of the record."""
    summary = summarize(rows)
    return {
        called: round(summary[name].value, decimals or None)
        for name, (called, decimals) in names.items()
        if name in summary
    }


def line_of(result: Result, args: argparse.Namespace) -> dict[str, object]:
    """What is kept of a system."""
    about = json.loads(args.report.read_text(encoding="utf-8"))
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    groups: dict[str, list[Row]] = {}
    for row in result.rows:
        groups.setdefault(str(row.get("reference", "none")).split("_")[0], []).append(row)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "hours": args.hours,
        "updates": args.updates,
        "note": args.note,
        "model": result.settings.get("model"),
        "steps": result.settings.get("num_steps"),
        "cfg_strength": result.settings.get("cfg_strength"),
        "threads": about["threads"],
        "torch": about["torch"],
        **totals(result.rows, MORE_NAMES),
        "utterances": len(result.rows),
        **totals(result.rows, NAMES),
        **(
            {
                group: {"utterances": len(rows), **totals(rows, NAMES)}
                for group, rows in sorted(groups.items())
            }
            if len(groups) > 1
            else {}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="of stepflow-tts evaluate --json")
    parser.add_argument(
        "--hours", type=float, required=True, help="of training, student's included"
    )
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    line = line_of(read_results(args.report)[0], args)
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line, indent=1))


if __name__ == "__main__":
    main()
