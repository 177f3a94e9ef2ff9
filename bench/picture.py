"""The results as one picture: a panel for each case that a benchmark names, a dot for each candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.arithmetic import Summary, ratio, summary
from bench.model import Benchmark
from bench.report import NothingToReport
from bench.results import CaseResult, Result
from bench.table import number

_REXEC, _OTHER, _LIMIT = "#0b6e4f", "#8a5a00", "#999999"
_COLUMNS = 2


def draw(paths: Sequence[Path], results: Sequence[Result], every: Mapping[str, Benchmark]) -> None:
    """Writes the picture in the format of each path's suffix. NothingToReport without matplotlib, or with no panel."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise NothingToReport("there is no matplotlib here: pip install 'rexec[bench]'") from None
    mpl.use("Agg")
    # The same results give the same file, and its text stays text.
    mpl.rcParams.update({"svg.hashsalt": "rexec", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"})
    from matplotlib import pyplot

    panels = _panels(results, every)
    if not panels:
        raise NothingToReport("no result has a case for the picture")
    rows = math.ceil(len(panels) / _COLUMNS)
    heights = [
        max(len(_dots(case)) for _, case in panels[row * _COLUMNS : (row + 1) * _COLUMNS]) + 2.5 for row in range(rows)
    ]
    figure, axes = pyplot.subplots(
        rows, _COLUMNS, figsize=(12, 0.24 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for place, ax in enumerate(axes.flat):
        if place < len(panels):
            _panel(ax, *panels[place])
        else:
            ax.set_axis_off()
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panels(results: Sequence[Result], every: Mapping[str, Benchmark]) -> list[tuple[str, CaseResult]]:
    found = []
    for result in results:
        benchmark = every[result.benchmark]
        for name in benchmark.pictured:
            case = result.case(name)
            if case is not None and _dots(case):
                found.append((f"{benchmark.title}: {name}", case))
    return found


def _dots(case: CaseResult) -> list[tuple[str, Summary, float | None]]:
    """Who was measured: its name, its numbers, its ratio; the best first."""
    metric = case.metrics[0]
    measured = [(row.candidate, summary(row, metric.name), ratio(case, row)) for row in case.rows]
    known = [(name, numbers, times) for name, numbers, times in measured if numbers is not None and numbers.low > 0]
    return sorted(known, key=lambda dot: dot[1].median, reverse=metric.better == "higher")


def _panel(ax: Any, title: str, case: CaseResult) -> None:
    dots, metric = _dots(case), case.metrics[0]
    reference = next((numbers.median for name, numbers, _ in dots if name == case.reference), None)
    for height, (name, numbers, times) in enumerate(reversed(dots)):
        color = _REXEC if name.startswith("rexec") else _LIMIT if "limit" in name else _OTHER
        ax.plot([numbers.low, numbers.high], [height, height], color=color, linewidth=2.5, alpha=0.4)
        ax.plot(numbers.median, height, "o", color=color)
        text = number(numbers.median) + ("" if times is None or name == case.reference else f"  × {number(times)}")
        ax.annotate(text, (numbers.high, height), (7, 0), textcoords="offset points", va="center", color=color)
    if reference is not None:
        ax.axvline(reference, color=_OTHER, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(dots)), [name for name, _, _ in reversed(dots)])
    for label, (name, _, _) in zip(ax.get_yticklabels(), reversed(dots), strict=True):
        label.set_fontweight("bold" if name.startswith("rexec") else "normal")
    ax.set_ylim(-0.6, len(dots) - 0.4)
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter("")  # a narrow axis has no room for them; the numbers are beside the dots
    low, high = min(numbers.low for _, numbers, _ in dots), max(numbers.high for _, numbers, _ in dots)
    ax.set_xlim(low / 1.6, high * (high / low) ** 0.35 * 1.6)  # room for the text beside the last dot
    ax.set_title(f"{title}\n{metric.name} in {metric.unit}, {metric.better} is better", loc="left", fontsize=8.5)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
