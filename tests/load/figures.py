"""What a measurement tells, and how it is printed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

Row = tuple[str, str]


class Latency(NamedTuple):
    """Of a number of calls or lines, in seconds."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        ordered = sorted(seconds)
        return cls(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.99), ordered[-1])

    def __str__(self) -> str:
        return f"p50 {self.p50 * 1e3:.1f} ms, p99 {self.p99 * 1e3:.1f} ms, most {self.most * 1e3:.1f} ms"


def kilobytes(size: float) -> str:
    return f"{size / 1000:,.1f} KB"


def shown(outcomes: Counter[str]) -> str:
    """Which outcome how often, the most frequent first."""
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common())


def table(title: str, rows: Sequence[Row]) -> str:
    """Markdown, so that it can be pasted into a page."""
    width = max(len(name) for name, _ in rows)
    lines = [f"| {name:{width}} | {value} |" for name, value in rows]
    return "\n".join([f"\n{title}\n", f"| {'':{width}} | |", f"|{'-' * (width + 2)}|---|", *lines])


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
