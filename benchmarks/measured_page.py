"""Writes docs/measured.md, the figures of streaming, long text, the server ... : python benchmarks/measured_page.py

Every figure comes from a report in benchmarks/results/, beside the command that wrote it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "measured.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure or a few: of what, in which report, and a format of that report, `r`."""

    what: str
    report: str
    figures: str


GROUPS: dict[str, tuple[Row, ...]] = {
    "Streaming": (
        Row("first sound: one word", "first_audio", "{r[one_word][first_audio_ms_median]} ms"),
        Row("a sentence", "first_audio", "{r[short_sentence][first_audio_ms_median]} ms"),
        Row(
            "7 s without a comma",
            "first_audio",
            "{r[no_comma_in_long_first_sentence][first_audio_ms_median]} ms",
        ),
    ),
    "Long text": (
        Row(
            "ten minutes of prose, furthest minute from the first",
            "long_text",
            "{r[furthest_lu]} LU, SIM {r[furthest_sim]}",
        ),
        Row(
            "its WER as one text, and piece by piece",
            "long_text",
            "{r[stream][wer_percent]} %, {r[each_alone][wer_percent]} %",
        ),
        Row(
            "the first minus the second, in points, with the 95 % interval of paired texts",
            "long_text",
            "{r[wer_points_more][value]:+.2f} [{r[wer_points_more][low]:.2f}, {r[wer_points_more][high]:+.2f}]",
        ),
        Row(
            "peak memory of two minutes, and of ten",
            "long_text",
            "{r[peak_memory_mb][2_minutes]:.0f} MB, {r[peak_memory_mb][10_minutes]:.0f} MB",
        ),
    ),
    "Short text": (
        Row("WER of 200 short texts", "short_text", "{r[short][wer_percent]} %"),
        Row("the same of Kokoro-82M", "short_text_kokoro", "{r[short][wer_percent]} %"),
        Row(
            "100 repeated words, digits and letters: deletions and insertions per 100",
            "short_text",
            "{r[repeated][deletions_per_100]}, {r[repeated][insertions_per_100]}",
        ),
        Row(
            "the same of Kokoro-82M",
            "short_text_kokoro",
            "{r[repeated][deletions_per_100]}, {r[repeated][insertions_per_100]}",
        ),
    ),
    "Times of words": (
        Row(
            "median error by our aligner, and the aligner's own",
            "timestamps",
            "{r[word_times_by_aligner][median_ms]} ms, "
            "{r[own_error_on_known_durations][aligner][median_ms]} ms",
        ),
        Row(
            "by a recognizer, and the recognizer's own",
            "timestamps",
            "{r[word_times_by_recognizer][median_ms]} ms, "
            "{r[own_error_on_known_durations][recognizer][median_ms]} ms",
        ),
    ),
    "Speed": tuple(
        Row(
            f"speed {speed}: pitch, and WER",
            "control",
            f"{{r[speed_{speed}][pitch_change_percent]:+}} %, {{r[speed_{speed}][wer_percent]}} %",
        )
        for speed in ("0.5", "0.75", "1", "1.5", "2")
    ),
    "In an application": (
        Row(
            "calls of 32 threads that differ from the same call alone",
            "embedding",
            "{r[threads_in_parallel][different]} of {r[threads_in_parallel][calls]}",
        ),
        Row(
            "memory after the first 100 calls, over 1 000 different lengths",
            "embedding",
            "{r[lengths][growth_mb]:+} MB",
        ),
        Row("a batch of 32, beside call after call", "batches", "{r[times_as_fast]} times as fast"),
        Row("hostile texts that became speech or a clear error", "hostile_text", "{r[texts]}"),
    ),
    "Server": (
        Row("C: sentences a second of one client", "serve", "{r[c_sentences_per_second]}"),
        Row(
            "first sound at 0.5 C, p50 and p95",
            "serve",
            "{r[0.5_c][first_seconds][p50]} s, {r[0.5_c][first_seconds][p95]} s",
        ),
        Row(
            "first sound at 0.8 C, p50 and p95",
            "serve",
            "{r[0.8_c][first_seconds][p50]} s, {r[0.8_c][first_seconds][p95]} s",
        ),
        Row("memory after the first minute", "serve", "{r[memory_growth_mb]:+} MB"),
        Row(
            "memory over 10 000 damaged uploads, and what schemathesis ended with",
            "serve_fuzz",
            "{r[memory_growth_mb]:+} MB, exit code {r[schemathesis_exit_code]}",
        ),
    ),
    "A cluster": (
        Row(
            "sentences, of which a lost worker cost",
            "ray",
            "{r[sentences]}, {r[missing]} missing, {r[twice]} twice",
        ),
    ),
}

HEAD = """# What was measured

How the bundled checkpoint behaves on two cores of a CPU; how it sounds is under [Results](results.md). Written by
`python benchmarks/measured_page.py` from the reports in `benchmarks/results/`. WER is whisper-base's.
"""


def read(name: str) -> dict[str, Any]:
    """A report."""
    report: dict[str, Any] = json.loads(
        (FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8")
    )
    return report


def page() -> str:
    """Markdown."""
    parts = [HEAD]
    for title, rows in GROUPS.items():
        parts.append(f"## {title}\n\n| | |\n|---|---|")
        parts += [f"| {row.what} | {row.figures.format(r=read(row.report))} |" for row in rows]
        reports = {row.report: read(row.report) for row in rows}
        commands = [f"{r['command']}  # {name}.json, {r['date']}" for name, r in reports.items()]
        parts.append("\n```bash\n" + "\n".join(commands) + "\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
