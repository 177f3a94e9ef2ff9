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
    values = [sample[metric] for sample in row.samples if sample is not None and metric in sample]
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratio(case: CaseResult, row: Row) -> float | None:
    """How many times the reference's first metric this row's is: the median over repetitions that have both.

    Within a repetition both met the same phase of the machine, so the ratio is taken there.
    """
    metric = case.metrics[0].name
    reference = case.row(case.reference)
    if reference is None:
        return None
    ratios = [
        ours[metric] / theirs[metric]
        for ours, theirs in zip(row.samples, reference.samples, strict=False)
        if ours is not None and theirs is not None and metric in ours and theirs.get(metric)
    ]
    return statistics.median(ratios) if ratios else None


def verdict(goal: Goal, result: Result) -> Verdict:
    value = _median(goal.of, result)
    if value is None or not goal.times:
        return Verdict(goal, value)
    others = [other for other in (_median(cell, result) for cell in goal.times) if other]
    if not others:
        return Verdict(goal, None)
    # The best of the others: the lowest of what should be low, the highest of what should be high.
    best = min(others) if goal.bound == "at most" else max(others)
    return Verdict(goal, value / best)


def _median(cell: Cell, result: Result) -> float | None:
    case = result.case(cell.case)
    row = case.row(cell.candidate) if case else None
    found = summary(row, cell.metric) if row else None
    return found.median if found else None
