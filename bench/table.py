"""The results as text."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.arithmetic import Verdict, ratio, summary, verdict
from bench.model import Benchmark, Metric
from bench.results import CaseResult, Result, Row


def show(result: Result, benchmark: Benchmark, console: Console) -> None:
    """Every case as a table, then the goals."""
    console.print()
    console.print(Text(benchmark.title, style="bold"))
    for case in result.cases:
        console.print(_table(case))
        for row in case.rows:
            if note(row):
                console.print(Text(f"  {row.candidate} {note(row)}", style="yellow"))
    for goal in benchmark.goals:
        console.print(Text(f"  {judged(verdict(goal, result))}"))
    console.print(Text(f"  {result.seconds:.0f} s, {result.size}, {result.repetitions} repetitions", style="dim"))


def _table(case: CaseResult) -> Table:
    table = Table(title=case.name, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for metric in case.metrics:
        table.add_column(f"{metric.name} {metric.unit}".strip(), justify="right")
    table.add_column("ratio", justify="right")
    for row in case.rows:
        table.add_row(*cells(case, row))
    return table


def cells(case: CaseResult, row: Row) -> list[str]:
    """A row's name, each metric's median with its spread, and the ratio."""
    times = ratio(case, row)
    shown = "" if times is None else "1 (reference)" if row.candidate == case.reference else f"× {number(times)}"
    return [row.candidate, *(_value(row, metric) for metric in case.metrics), shown]


def _value(row: Row, metric: Metric) -> str:
    found = summary(row, metric.name)
    if found is None:
        return ""
    if found.count == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def note(row: Row) -> str:
    """Why there is less of it, or nothing."""
    if row.skipped:
        return f"skipped: {row.skipped}"
    return f"failed: {row.error}" if row.error else ""


def judged(found: Verdict) -> str:
    """A goal in words, and what became of it."""
    goal = found.goal
    wanted = f"{goal.what}: {goal.bound} {'× ' if goal.times else ''}{number(goal.limit)} {goal.unit}".strip()
    if found.value is None:
        return f"{wanted} – not measured"
    value = f"{'× ' if goal.times else ''}{number(found.value)} {goal.unit}".strip()
    return f"{wanted} – {'met' if found.met else 'NOT met'}, {value}"


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}".removesuffix(".0")
