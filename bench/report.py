"""`python -m bench report`: from bench/results/*.json to the tables of docs/performance.md and the picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.arithmetic import Verdict, verdict
from bench.model import Benchmark
from bench.results import CaseResult, Result
from bench.table import cells, note, number

BEGIN, END = "<!-- results: written by `python -m bench report` -->", "<!-- end of results -->"


class NothingToReport(Exception):
    """No results, or no place for them; the message says which, and what to do."""


def load(directory: Path, every: Mapping[str, Benchmark]) -> list[Result]:
    """The results of all benchmarks that have any, in the order of the benchmarks. NothingToReport."""
    paths = [directory / f"{name}.json" for name in every]
    found = [Result.load(path) for path in paths if path.exists()]
    if not found:
        raise NothingToReport(f"{directory} has no results: run `make bench` first")
    return found


def write(page: Path, results: Sequence[Result], every: Mapping[str, Benchmark]) -> None:
    """Puts the tables between the page's markers. NothingToReport when it has none."""
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise NothingToReport(f"{page} has no lines {BEGIN} and {END} to write between")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    tables = "\n".join(_lines(results, every))
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}")


def _lines(results: Sequence[Result], every: Mapping[str, Benchmark]) -> Iterator[str]:
    yield "### The machine"
    yield ""
    yield f"{'; '.join(f'{name} {value}' for name, value in results[0].machine.items())}."
    yield ""
    yield "### The goals"
    yield ""
    yield from _goals(results, every)
    for result in results:
        benchmark = every[result.benchmark]
        yield f"### {benchmark.title}"
        yield ""
        yield f"{benchmark.about} `make bench ARGS='{benchmark.name}'`; {_times(result.repetitions)}."
        yield ""
        for case in result.cases:
            yield from _table(case)


def _times(repetitions: int) -> str:
    return "1 repetition" if repetitions == 1 else f"{repetitions} repetitions"


def _goals(results: Sequence[Result], every: Mapping[str, Benchmark]) -> Iterator[str]:
    yield "| goal | wanted | measured | |"
    yield "|---|---|---|---|"
    for result in results:
        for goal in every[result.benchmark].goals:
            found = verdict(goal, result)
            times = "× " if goal.times else ""
            wanted = f"{goal.bound} {times}{number(goal.limit)} {goal.unit}".strip()
            measured = "not measured" if found.value is None else f"{times}{number(found.value)} {goal.unit}".strip()
            yield f"| {result.benchmark}: {goal.what} | {wanted} | {measured} | {_by(found)} |"
    yield ""


def _by(found: Verdict) -> str:
    """Met or not, and by how much: the factor between what was wanted and what was measured."""
    if not found.value or found.value < 0:
        return ""
    factor = found.goal.limit / found.value if found.goal.bound == "at most" else found.value / found.goal.limit
    return f"met, by × {number(factor)}" if found.met else f"**not met**, × {number(1 / factor)} away"


def _table(case: CaseResult) -> Iterator[str]:
    heads = [case.name, *(f"{metric.name}, {metric.unit}" for metric in case.metrics), "ratio"]
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for row in case.rows:
        name, *values = cells(case, row)
        name = name.replace("|", r"\|")  # Markdown ends the cell at it
        yield f"| {' | '.join([f'**{name}**' if name.startswith('rexec') else name, *values])} |"
    yield ""
    notes = [f"{row.candidate} {note(row)}" for row in case.rows if note(row)]
    if notes:
        yield f"{'; '.join(notes)}."
        yield ""
