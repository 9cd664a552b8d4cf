"""Scores of all utterances to one table: values with intervals, and differences between systems."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from stepflow_tts.errors import OptionError
from stepflow_tts.evaluation.intervals import (
    Interval,
    Pair,
    Statistic,
    difference,
    interval,
    median_of_ratios,
    quotient,
    ratio_of_sums,
)

Row: TypeAlias = dict[str, str | int | float]
"""What is known of one utterance, by name: text, wav, heard, and a number for every score."""

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the table, from two columns of the rows."""

    title: str
    numerator: str
    denominator: str | None = None  # None: one, so that the mean comes out
    scale: float = 1.0
    decimals: int = 2
    statistic: Statistic = ratio_of_sums
    lower_is_better: bool = False


METRICS: Mapping[str, Metric] = {
    "wer": Metric("WER %", "word_errors", "words", 100, lower_is_better=True),
    "cer": Metric("CER %", "character_errors", "characters", 100, lower_is_better=True),
    "deletions": Metric(
        "deletions / 1000 words", "deletions", "words", 1000, 1, lower_is_better=True
    ),
    "insertions": Metric(
        "insertions / 1000 words", "insertions", "words", 1000, 1, lower_is_better=True
    ),
    "sim": Metric("SIM", "sim", decimals=3),
    "dnsmos": Metric("DNSMOS overall", "dnsmos"),
    "dnsmos_sig": Metric("DNSMOS speech", "dnsmos_sig"),
    "dnsmos_bak": Metric("DNSMOS background", "dnsmos_bak"),
    "distillmos": Metric("Distill-MOS", "distillmos"),
    "nfe": Metric("NFE, counted", "evaluations", "chunks", decimals=1),
    **{
        name: Metric(title, seconds, "audio_seconds", 1, 4, median_of_ratios, lower_is_better=True)
        for name, title, seconds in (
            ("rtf", "RTF, together", "synthesis_seconds"),
            ("rtf_acoustic", "RTF without vocoder", "acoustic_seconds"),
            ("rtf_vocoder", "RTF of vocoder", "vocoder_seconds"),
            ("rtf_flow", "RTF of flow network", "flow_seconds"),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Result:
    """One system's utterances, in the order of the list."""

    name: str
    rows: list[Row]
    settings: dict[str, str | int | float] = field(default_factory=dict)  # empty: not spoken by us
    parameters: int | None = None  # of the acoustic model, counted
    vocoder_parameters: int | None = None


def summarize(rows: Sequence[Row]) -> dict[str, Interval]:
    """Every metric that all rows have the columns of, with its 95 % interval."""
    return {
        name: interval(metric.statistic, _pair(metric, rows))
        for name, metric in METRICS.items()
        if _has(metric, rows)
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against another, utterance by utterance."""

    system: str
    against: str
    difference: dict[str, Interval]  # the first minus the second
    speedup: dict[str, Interval]  # of each RTF: the second over the first, above 1 = faster


def compare(first: Result, second: Result) -> Comparison:
    """What the first does better or worse, with paired intervals.

    Raises:
        OptionError: they have not spoken the same lines, or have no metric in common.
    """
    keys = [[_line(row) for row in result.rows] for result in (first, second)]
    if keys[0] != keys[1]:
        raise OptionError(
            f"{first.name!r} ({len(keys[0])} utterances) and {second.name!r} ({len(keys[1])}) did "
            "not speak the same texts with the same references in the same order: they cannot be "
            "paired. Evaluate both on the same list."
        )
    common = [
        (name, metric, _pair(metric, first.rows), _pair(metric, second.rows))
        for name, metric in METRICS.items()
        if _has(metric, first.rows) and _has(metric, second.rows)
    ]
    if not common:
        raise OptionError(f"{first.name!r} and {second.name!r} have no score in common.")
    return Comparison(
        first.name,
        second.name,
        {name: difference(metric.statistic, a, b) for name, metric, a, b in common},
        {
            name: quotient(metric.statistic, b, a)
            for name, metric, a, b in common
            if name.startswith("rtf")
        },
    )


def format_table(results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    """The metrics as lines and the systems as columns, then the comparisons."""
    summaries = [summarize(result.rows) for result in results]
    lines = [["", *(result.name for result in results)]]
    lines.append(["utterances", *(str(len(result.rows)) for result in results)])
    for title, counts in (
        ("parameters", [result.parameters for result in results]),
        ("vocoder parameters", [result.vocoder_parameters for result in results]),
    ):
        if any(count is not None for count in counts):
            lines.append([title, *("-" if count is None else f"{count:,}" for count in counts)])
    for name, metric in METRICS.items():
        if any(name in summary for summary in summaries):
            cells = [format_interval(summary.get(name), metric.decimals) for summary in summaries]
            lines.append([metric.title, *cells])
    for c in comparisons:
        lines += [[], [f"{c.system} minus {c.against}, paired"]]
        for name, value in c.difference.items():
            lines.append([METRICS[name].title, format_interval(value, METRICS[name].decimals, "+")])
        for name, value in c.speedup.items():
            lines.append([f"times as fast, {METRICS[name].title}", format_interval(value, 2)])
    width = max(len(cell) for line in lines for cell in line[:1]) + 2
    widths = [
        max(len(line[column]) for line in lines if len(line) > column) + 2
        for column in range(1, len(results) + 1)
    ]
    text = (
        line[0].ljust(width) + "".join(c.rjust(w) for c, w in zip(line[1:], widths, strict=False))
        if line
        else ""
        for line in lines
    )
    return "\n".join(line.rstrip() for line in text) + "\n\nIn brackets: 95 % bootstrap intervals."


def to_json(
    results: Sequence[Result],
    comparisons: Sequence[Comparison],
    about: Mapping[str, str | int | Mapping[str, str | None]],
) -> str:
    """The whole report, which `read_results` reads.

    Args:
        results: with their rows.
        comparisons: of any of them, or of them against others.
        about: of the machine, the date and the models that scored.
    """
    report = {
        "format_version": FORMAT_VERSION,
        **about,
        "systems": [
            {
                "name": result.name,
                "settings": result.settings,
                "parameters": result.parameters,
                "vocoder_parameters": result.vocoder_parameters,
                "metrics": _objects(summarize(result.rows)),
                "rows": result.rows,
            }
            for result in results
        ],
        "comparisons": [
            asdict(c) | {"difference": _objects(c.difference), "speedup": _objects(c.speedup)}
            for c in comparisons
        ],
    }
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)


def read_results(path: Path) -> list[Result]:
    """The systems of a report.

    Raises:
        OptionError: it cannot be read, or is none of this version.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["format_version"] != FORMAT_VERSION:
            raise OptionError(
                f"The report {path} has the format version {report['format_version']}; this version "
                f"reads {FORMAT_VERSION}. Evaluate again."
            )
        keys = ("name", "rows", "settings", "parameters", "vocoder_parameters")
        return [Result(*(system[key] for key in keys)) for system in report["systems"]]
    except OSError as error:
        raise OptionError(f"The report {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"{path} is no report: {type(error).__name__}: {error}. Give the JSON that "
            "stepflow-tts evaluate --json has written."
        ) from error


def _pair(metric: Metric, rows: Sequence[Row]) -> Pair:
    """Scaled numerators, and denominators."""
    column: Callable[[str], list[float]] = lambda name: [float(row[name]) for row in rows]  # noqa: E731
    numerators = np.array(column(metric.numerator)) * metric.scale
    if metric.denominator is None:
        return Pair(numerators, np.ones_like(numerators))
    return Pair(numerators, np.array(column(metric.denominator)))


def _has(metric: Metric, rows: Sequence[Row]) -> bool:
    columns = [name for name in (metric.numerator, metric.denominator) if name is not None]
    return all(name in row for row in rows for name in columns)


def _line(row: Row) -> tuple[str, str]:
    """What makes two systems' utterances the same: text, and the reference's file name."""
    return str(row.get("text", "")), str(row.get("reference", ""))


def format_interval(value: Interval | None, decimals: int, sign: str = "") -> str:
    """The value with its ends in brackets; "-" where there is none."""
    if value is None:
        return "-"
    middle = f"{value.value:{sign}.{decimals}f}"
    if value.low is None or value.low == value.high:
        return middle
    return f"{middle} [{value.low:{sign}.{decimals}f}, {value.high:{sign}.{decimals}f}]"


def _objects(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: value._asdict() for name, value in intervals.items()}
