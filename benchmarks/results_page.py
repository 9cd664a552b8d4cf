"""Writes docs/results.md and docs/results.html: tables, charts and samples of every row of the comparison.

    python benchmarks/results_page.py [--folder runs/nano --clone REFERENCE.wav --clone OTHER.wav]

Reads the rows' reports in benchmarks/results, their checkpoints and losses.csv in the run's folder, and
results_page.md beside this file, which holds the words of the page. Each row's command is in the page.
Without a folder the words and tables are written, and the sounds, losses and spectrograms stay as they are.
"""

import argparse
import csv
import html
import json
import re
import string
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import markdown
import numpy as np
import soundfile
from matplotlib.figure import Figure

from stepflow_tts import Speech, StepFlowTTS
from stepflow_tts.audio.io import encode_audio
from stepflow_tts.evaluation.intervals import Interval
from stepflow_tts.evaluation.report import (
    METRICS,
    Result,
    compare,
    format_interval,
    read_results,
    summarize,
)
from stepflow_tts.plotting import draw_mel

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
AUDIO = DOCS / "audio"
IMAGES = DOCS / "images"
COLUMNS = ("wer", "sim", "dnsmos", "distillmos")
SENTENCES = (
    "The unique step-aware tokens significantly reduce parameters.",
    "Exploring the boundaries of flow-matching distillation.",
)
LOUDEST_NATS = 4.0  # of all rows, so that their colors compare


@dataclass(frozen=True, slots=True)
class Row:
    """A system of the comparison; its report is benchmarks/results/NAME.json."""

    name: str
    title: str
    checkpoint: str | None  # in the run's folder of checkpoints; None: the bundled one
    num_steps: int = 1
    cfg_strength: float = 0.0

    @property
    def command(self) -> str:
        """What wrote the report."""
        model = f" --model runs/nano/checkpoints/{self.checkpoint}" if self.checkpoint else ""
        steps = f" --steps {self.num_steps}" if self.num_steps > 1 else ""
        guidance = f" --cfg-strength {self.cfg_strength:g}" if self.cfg_strength else ""
        return (
            f"stepflow-tts evaluate PAIRS.tsv{model}{steps}{guidance} --name {self.name} "
            f"--json benchmarks/results/{self.name}.json"
        )


TEACHER = Row("teacher", "teacher, 10 steps, w = 0.7", "teacher", 10, 0.7)
TEACHER_GL1 = Row("teacher_gl1", "the same with a round of Griffin-Lim", "teacher_gl1", 10, 0.7)
TEACHER_BUNDLE = Row(
    "teacher_bundle",
    "the same, heard as the bundle is",
    "teacher_heard",
    10,
    0.7,
)
BUNDLE = Row("bundle", "**the bundled student**, 1 step", None)
BUNDLE_2 = Row("bundle_2", "the bundled student, 2 steps", None, 2)
BUNDLE_4 = Row("bundle_4", "the bundled student, 4 steps", None, 4)
ENDPOINT = Row("endpoint", "endpoint, 1 step", "endpoint")
CONSISTENCY = Row("consistency", "consistency, 1 step", "consistency")
DUAL = Row("dual", "dual, adaLN-Zero, 1 step", "dual")
TOKEN = Row("token", "StepFlow `token`, 1 step", "token")
TABLE = Row("table", "StepFlow `table`, 1 step", "table")
GUIDANCE = Row("guidance", "dual and weak guidance, adaLN-Zero", "guidance")
LAST = Row("token_guidance", "dual, weak guidance, step-aware token", "token_guidance")
METHODS = (
    TEACHER,
    TEACHER_GL1,
    TEACHER_BUNDLE,
    Row("teacher_w0", "teacher, 10 steps, w = 0", "teacher", 10),
    ENDPOINT,
    CONSISTENCY,
    DUAL,
    TOKEN,
    Row("token_2", "StepFlow `token`, 2 steps", "token", 2),
    Row("token_4", "StepFlow `token`, 4 steps", "token", 4),
    TABLE,
    Row("table_2", "StepFlow `table`, 2 steps", "table", 2),
    Row("table_4", "StepFlow `table`, 4 steps", "table", 4),
    BUNDLE,
    BUNDLE_2,
    BUNDLE_4,
)
ABLATION = (ENDPOINT, DUAL, GUIDANCE, LAST)
SHORTER = Row("updates_7000", "7 000 updates instead of 400, on 11 hours", "updates_7000")
LONGER = Row("longer", "10 200, the last 3 200 on 15.5 hours of trajectories", "longer")
REFINED = Row("refined", "and a refiner", "refined")
GRIFFIN_LIM = Row("griffin_lim", "and a round of Griffin-Lim, and less noise", "griffin_lim")
REMEDIES = (
    TOKEN,
    Row("token_one", "all 400 updates at one step", "token_one"),
    SHORTER,
    LONGER,
    REFINED,
    GRIFFIN_LIM,
    Row("bundle", "and formants raised: the bundled student", None),
)
STRENGTHS = (
    TOKEN,
    Row("token_w0.05", "StepFlow `token`, w = 0.05", "token", 1, 0.05),
    Row("token_w0.2", "StepFlow `token`, w = 0.2", "token", 1, 0.2),
)
PAIRED = (
    (BUNDLE, TEACHER),
    (BUNDLE, TEACHER_BUNDLE),
    (BUNDLE_2, BUNDLE),
    (BUNDLE_4, BUNDLE_2),
    (BUNDLE_2, TEACHER_BUNDLE),
    (LONGER, SHORTER),
    (REFINED, LONGER),
    (GRIFFIN_LIM, REFINED),
    (BUNDLE, GRIFFIN_LIM),
    (TEACHER_BUNDLE, TEACHER_GL1),
    (TOKEN, ENDPOINT),
    (TOKEN, CONSISTENCY),
    (TABLE, ENDPOINT),
    (TABLE, CONSISTENCY),
    (DUAL, ENDPOINT),
    (TOKEN, DUAL),
)
HEARD = (TEACHER, BUNDLE, ENDPOINT, CONSISTENCY, DUAL, TOKEN, TABLE)
CLONING = (TEACHER, BUNDLE)
LEARNT = (ENDPOINT, DUAL, TOKEN, TABLE, GUIDANCE, LAST)


def result_of(row: Row) -> Result:
    """A row's report, of which it is the first system."""
    return read_results(RESULTS / f"{row.name}.json")[0]


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def scores(rows: Sequence[Row]) -> str:
    """The rows with their scores."""
    lines = []
    for row in rows:
        result = result_of(row)
        summary = summarize(result.rows)
        cells = [format_interval(summary[name], METRICS[name].decimals) for name in COLUMNS]
        nfe = f"{summary['nfe'].value:g}"
        parameters = f"{(result.parameters or 0) / 1e6:.1f} M"
        lines.append([row.title, nfe, parameters, *cells])
    return table(["", "NFE", "parameters", *(METRICS[name].title for name in COLUMNS)], lines)


def differences(pairs: Sequence[tuple[Row, Row]]) -> str:
    """The first of each pair minus the second."""
    lines = []
    for first, second in pairs:
        found = compare(result_of(first), result_of(second)).difference
        cells = [format_interval(found[name], METRICS[name].decimals, "+") for name in COLUMNS]
        lines.append([f"{first.name} - {second.name}", *cells])
    return table(["", *(METRICS[name].title for name in COLUMNS)], lines)


def speed() -> str:
    """How often the student's networks run while the teacher's run once, from results/speed.json."""
    student, teacher = read_results(RESULTS / "speed.json")
    found = compare(student, teacher).speedup
    summaries = [summarize(result.rows) for result in (student, teacher)]
    lines = [
        [
            METRICS[name].title,
            *(format_interval(summary[name], METRICS[name].decimals) for summary in summaries),
            format_interval(found[name], 1),
        ]
        for name in ("rtf_flow", "rtf_acoustic", "rtf")
    ]
    return table(["", "student", "teacher", "times as fast"], lines)


def variance() -> str:
    """The numbers of results/variance.json."""
    report = json.loads((RESULTS / "variance.json").read_text(encoding="utf-8"))
    shown = (
        ("dual_over_endpoint", "trace"),
        ("dual_over_endpoint", "relative"),
        ("dual_over_consistency", "trace"),
        ("dual_over_consistency", "relative"),
    )
    lines = []
    for name, numbers in zip(("start", "middle", "end"), report["states"].values(), strict=True):
        cells = [format_interval(Interval(**numbers[pair][kind]), 2) for pair, kind in shown]
        lines.append([name, *cells])
    head = [f"{pair.replace('_', ' ')}, {kind}" for pair, kind in shown]
    return table(["", *head], lines) + f"\n\n`{report['command']}`"


def losses_of(path: Path, name: str) -> tuple[list[int], list[float]]:
    """One curve of a losses.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        points = [
            (int(line["step"]), float(line["value"]))
            for line in csv.DictReader(file)
            if line["name"] == name
        ]
    return [step for step, _ in points], [value for _, value in points]


def draw_losses(folder: Path, path: Path) -> None:
    """The one-step endpoint loss of every student of the comparison while it learns."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for row in LEARNT:
        assert row.checkpoint is not None
        steps, values = losses_of(folder / row.checkpoint / "losses.csv", "endpoint_1")
        width = min(5, len(values))
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        style = "--" if "guidance" in row.name else "-"  # which else would hide those without
        axes.plot(steps[width - 1 :], smooth, style, label=row.name)
    axes.set(yscale="log", xlabel="update", ylabel="endpoint loss of one step")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_quality(path: Path) -> None:
    """Scores against the number of steps, with their intervals; the teacher as two lines."""
    names = ("wer", "sim", "dnsmos", "distillmos")
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    teachers = [
        (summarize(result_of(row).rows), style, label)
        for row, style, label in (
            (TEACHER, "--", "teacher, 10"),
            (TEACHER_BUNDLE, ":", "heard as the bundle"),
        )
    ]
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for checkpoint, shift in (("token", 0.97), ("table", 1.03), (None, 1.0)):
            rows = [row for row in METHODS if row.checkpoint == checkpoint]
            values = [summarize(result_of(row).rows)[name] for row in rows]
            middle = np.array([value.value for value in values])
            ends = np.array([[value.low, value.high] for value in values], dtype=float)
            errors = np.abs(ends.T - middle)
            steps = np.array([row.num_steps for row in rows]) * shift
            axes.errorbar(
                steps, middle, errors, marker="o", capsize=3, label=checkpoint or "bundle"
            )
        for summary, style, label in teachers:
            axes.axhline(summary[name].value, color="tab:gray", linestyle=style, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4], ["1", "2", "4"])
        axes.set(title=METRICS[name].title, xlabel="steps")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def draw_spectrograms(spoken: dict[str, Speech], path: Path) -> None:
    """The same sentence of every row."""
    figure = Figure(figsize=(12, 1.9 * len(spoken)), layout="constrained")
    for axes, (name, speech) in zip(figure.subplots(len(spoken)), spoken.items(), strict=True):
        draw_mel(axes, speech.samples, speech.sample_rate).set_clim(vmax=LOUDEST_NATS)
        axes.set(ylabel=name, yticks=[])
    figure.axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=80)


def speaker(row: Row, folder: Path) -> StepFlowTTS:
    """What speaks a row; close it."""
    source = None if row.checkpoint is None else folder / "checkpoints" / row.checkpoint
    return StepFlowTTS.from_pretrained(source)


def speak_rows(folder: Path) -> dict[str, list[Speech]]:
    """Both sentences of every row that is heard, in the first bundled voice, seed 0."""
    spoken = {}
    for row in HEARD:
        with speaker(row, folder) as tts:
            spoken[row.name] = [
                tts.synthesize(text, num_steps=row.num_steps, cfg_strength=row.cfg_strength)
                for text in SENTENCES
            ]
    return spoken


def save_samples(spoken: dict[str, list[Speech]]) -> None:
    """The sentences of every row, as `samples` has them."""
    for name, speeches in spoken.items():
        for number, speech in enumerate(speeches, 1):
            speech.save(AUDIO / f"{name}-{number}.opus")


def samples() -> str:
    """The table of samples."""
    numbers = range(1, len(SENTENCES) + 1)
    lines = [[row.title, *(listen(f"{row.name}-{n}") for n in numbers)] for row in HEARD]
    return table(["", *(f'"{text}"' for text in SENTENCES)], lines)


def save_clones(references: Sequence[Path], folder: Path) -> None:
    """The references, and the first sentence in their voices, in place of the former."""
    for old in (*AUDIO.glob("reference-*.opus"), *AUDIO.glob("clone-*.opus")):
        old.unlink()
    for reference in references:
        samples, sample_rate = soundfile.read(reference, dtype="float32")
        encoded = encode_audio(samples, sample_rate, "opus")
        (AUDIO / f"reference-{reference.stem}.opus").write_bytes(encoded)
        for row in CLONING:
            with speaker(row, folder) as tts:
                speech = tts.synthesize(
                    SENTENCES[0], reference, num_steps=row.num_steps, cfg_strength=row.cfg_strength
                )
            speech.save(AUDIO / f"clone-{row.name}-{reference.stem}.opus")


def clones() -> str:
    """The table of the references that lie there, and of their clones."""
    names = sorted(path.stem.removeprefix("reference-") for path in AUDIO.glob("reference-*.opus"))
    lines = [
        [
            name,
            listen(f"reference-{name}"),
            *(listen(f"clone-{row.name}-{name}") for row in CLONING),
        ]
        for name in names
    ]
    return table(["", "the recording", *(row.title for row in CLONING)], lines)


def listen(name: str) -> str:
    """A link to a sound, which `to_html` makes a player."""
    return f"[listen](audio/{name}.opus)"


def to_html(text: str) -> str:
    """The page with players instead of links to sound."""
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    body = re.sub(
        r'<a href="(audio/[^"]+)">[^<]*</a>',
        r'<audio controls preload="metadata" src="\1"></audio>',
        body,
    )
    body = re.sub(r'href="(?!https?:)([a-z_]+)\.md', r'href="\1.md', body)
    title = html.escape(text.split("\n", 1)[0].lstrip("# "))
    return PAGE.substitute(title=title, body=body)


PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8886; text-align: left; }
img { max-width: 100%; height: auto; background: white; }
pre { overflow-x: auto; padding: .7rem; background: #8882; }
audio { width: 15rem; max-width: 60vw; height: 2.4rem; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="of the run, with its checkpoints")
    parser.add_argument("--clone", type=Path, action="append", default=[], metavar="REFERENCE.wav")
    args = parser.parse_args()
    if bool(args.folder) != bool(args.clone):
        parser.error("Give --folder and --clone together, or neither.")
    if args.folder:
        spoken = speak_rows(args.folder)
        save_samples(spoken)
        save_clones(args.clone, args.folder)
        draw_spectrograms(
            {name: speeches[0] for name, speeches in spoken.items()},
            IMAGES / "results_spectrograms.jpg",
        )
        draw_losses(args.folder, IMAGES / "results_losses.png")
    draw_quality(IMAGES / "results_quality.png")
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    rows = (*METHODS, *ABLATION, *REMEDIES, *STRENGTHS)
    parts = {
        "commit": commit,
        "methods": scores(METHODS),
        "paired": differences(PAIRED),
        "ablation": scores(ABLATION),
        "remedies": scores(REMEDIES),
        "strengths": scores(STRENGTHS),
        "speed": speed(),
        "variance": variance(),
        "samples": samples(),
        "clones": clones(),
        "commands": "\n".join(dict.fromkeys(row.command for row in rows)),
    }
    template = string.Template(
        (Path(__file__).parent / "results_page.md").read_text(encoding="utf-8")
    )
    text = template.substitute(parts)
    (DOCS / "results.md").write_text(text, encoding="utf-8")
    (DOCS / "results.html").write_text(to_html(text), encoding="utf-8")


if __name__ == "__main__":
    main()
