"""Medians, spreads, ratios; and whether a goal is met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.model import Cell, Goal
from bench.results import CaseResult, Result, Row


@dataclass(frozen=True)
class Summary:
    """The median of the turns, the lowest and the highest of them, and how many there were."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Verdict:
    """What a goal came to. `value` is in the goal's unit, or a ratio; None when it could not be measured."""

    goal: Goal
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.goal.limit if self.goal.bound == "at most" else self.value >= self.goal.limit


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed (the nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(row: Row, metric: str) -> Summary | None:
    """Of one metric over all turns; None when no turn gave it."""
    values = [value for value in _values(row, metric) if value is not None]
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratio(case: CaseResult, row: Row) -> float | None:
    """How many times the reference's first metric this row's is."""
    metric = case.metrics[0].name
    reference = case.row(case.reference)
    return paired(_values(row, metric), _values(reference, metric)) if reference else None


def paired(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """The median over those repetitions that have both: within one, both met the same phase of the machine."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=False) if our is not None and their]
    return statistics.median(ratios) if ratios else None


def verdict(goal: Goal, result: Result) -> Verdict:
    ours = _cell(goal.of, result)
    if not goal.times:
        return Verdict(goal, _median(ours))
    others = [values for values in (_cell(cell, result) for cell in goal.times) if _median(values) is not None]
    if not others:
        return Verdict(goal, None)
    # The best of the others: the lowest of what should be low, the highest of what should be high.
    best = (min if goal.bound == "at most" else max)(others, key=lambda values: _median(values) or 0)
    return Verdict(goal, paired(ours, best))


def _cell(cell: Cell, result: Result) -> Sequence[float | None]:
    case = result.case(cell.case)
    row = case.row(cell.candidate) if case else None
    return _values(row, cell.metric) if row else ()


def _values(row: Row, metric: str) -> Sequence[float | None]:
    """One for each repetition."""
    return [None if sample is None else sample.get(metric) for sample in row.samples]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
