"""Medians, spreads, ratios and verdicts."""

from __future__ import annotations

import pytest

from bench.arithmetic import Summary, paired, percentile, ratio, summary, verdict
from bench.model import Cell, Goal
from tests.bench.results import case, result, row

OURS, SSH, OTHER = Cell("one", "rexec", "time"), Cell("one", "ssh", "time"), Cell("one", "other", "time")


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7], 50, 7), ([3, 1, 2], 50, 2), ([4, 3, 2, 1], 50, 2), (range(1, 101), 99, 99), (range(1, 101), 100, 100)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float) -> None:
    """The nearest rank: so many percent of the values are not above it."""
    assert percentile(values, percent) == expected


def test_a_summary_is_of_the_turns_that_were_taken() -> None:
    """Median, lowest, highest and how many; a turn that was not taken is no turn."""
    assert summary(row("rexec", 3, None, 1, 8), "time") == Summary(3, 1, 8, 3)
    assert summary(row("rexec", None), "time") is None
    assert summary(row("rexec", 1), "another metric") is None


def test_a_ratio_is_taken_within_each_repetition() -> None:
    """A phase in which everything took ten times as long changes no ratio."""
    slow_phase = case(row("rexec", 1, 10, 1), row("ssh", 2, 20, 2))
    assert ratio(slow_phase, slow_phase.rows[0]) == 0.5
    assert paired([1, 30], [2, 20]) == 1.0


def test_a_ratio_needs_a_repetition_that_both_have() -> None:
    """Without a reference, or without a common turn, there is none."""
    apart = case(row("rexec", None, 1), row("ssh", 2, None))
    assert ratio(apart, apart.rows[0]) is None
    alone = case(row("rexec", 1))
    assert ratio(alone, alone.rows[0]) is None


@pytest.mark.parametrize(
    ("bound", "limit", "met"),
    [("at most", 5, True), ("at most", 4, True), ("at most", 3, False), ("at least", 5, False)],
)
def test_a_limit_is_met_or_not(bound: str, limit: float, met: bool) -> None:
    """The median is compared, and the limit itself is within it."""
    goal = Goal("g", OURS, bound, limit, unit="ms")  # type: ignore[arg-type]
    found = verdict(goal, result(case(row("rexec", 1, 4, 9))))
    assert (found.value, found.met) == (4, met)


def test_a_goal_beside_others_is_beside_the_best_of_them() -> None:
    """The fastest of several for what should be low, the highest rate for what should be high."""
    measured = result(case(row("rexec", 6), row("ssh", 3), row("other", 2)))
    assert verdict(Goal("g", OURS, "at most", 2, (SSH, OTHER)), measured).value == 3
    assert verdict(Goal("g", OURS, "at least", 2, (SSH, OTHER)), measured).value == 2


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """Neither without our own turns, nor without those of whom it is compared with."""
    for rows in ([row("ssh", 1)], [row("rexec", 1)], [row("rexec", None), row("ssh", 1)]):
        found = verdict(Goal("g", OURS, "at most", 2, (SSH,)), result(case(*rows)))
        assert (found.value, found.met) == (None, None)
