"""The report as a picture: one panel a metric, one bar of uncertainty a system."""

import io
from collections.abc import Sequence
from typing import Any

from stepflow_tts.evaluation.report import METRICS, Result, summarize
from stepflow_tts.evaluation.sources import import_package

PANELS = ("wer", "sim", "dnsmos", "distillmos", "rtf", "rtf_flow")
NUM_COLUMNS = 3


def draw(results: Sequence[Result]) -> bytes:
    """A PNG of the main metrics of all systems, with their intervals.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure_module = import_package("matplotlib.figure", "The chart")
    summaries = [summarize(result.rows) for result in results]
    panels = [name for name in PANELS if any(name in summary for summary in summaries)]
    num_rows = max(1, -(-len(panels) // NUM_COLUMNS))
    # A figure of its own, without pyplot: no window, no state, and no display needed.
    figure: Any = figure_module.Figure(
        figsize=(4.2 * NUM_COLUMNS, num_rows * (1.1 + 0.42 * len(results))), layout="constrained"
    )
    axes = list(figure.subplots(num_rows, NUM_COLUMNS, squeeze=False, sharey=True).flat)
    for axis, name in zip(axes, panels, strict=False):
        metric = METRICS[name]
        for height, summary in enumerate(summaries):
            if name not in summary:
                continue
            value, low, high = summary[name]
            ends = [value if end is None else end for end in (low, high)]
            axis.plot(ends, [height, height], color="tab:gray", linewidth=2, zorder=1)
            axis.plot(value, height, "o", color=f"C{height}", zorder=2)
            axis.annotate(
                f"{value:.{metric.decimals}f}",
                (value, height),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        better = "lower" if metric.lower_is_better else "higher"
        axis.set_title(f"{metric.title} ({better} is better)", fontsize=10)
        axis.set_yticks(range(len(results)), [result.name for result in results])
        axis.set_ylim(len(results) - 0.5, -0.6)
        axis.margins(x=0.15)
        axis.grid(axis="x", alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("dots: measured; lines: 95 % bootstrap intervals", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
