"""List, Poll, a start and a restart, at 1,000, 10,000 and 100,000 executions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from bench.candidates.rexec import client
from bench.filled import FilledServer
from bench.lab import Lab
from bench.load import by_one
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Opened, Sample, Size, Turn
from bench.verify import Wrong, expect_status
from rexec_client import Client

LIST, POLL, START, RESTART = "List, the newest 100", "Poll of an ended one", "start, `true` to its end", "restart"
COUNTS = (1_000, 10_000, 100_000)
P50, RATE, SECONDS = Metric("p50", "ms"), Metric("rate", "/s", "higher"), Metric("time", "s")
# What is called flat: at most so many times as long, with a hundred times as many.
FLAT = 1.5

Turns = Callable[[FilledServer, int, int], Iterator[Turn]]


def cases(size: Size) -> Sequence[Case]:
    counts = {Size.FULL: COUNTS, Size.SHORT: COUNTS[:2], Size.SHORTEST: (100, 200)}[size]
    calls = size.pick(100, 30, 3)
    described = ((LIST, _list, P50), (POLL, _poll, P50), (START, _start, P50), (RESTART, _restart, SECONDS))
    return tuple(
        Case(
            name,
            (metric,),
            tuple(Candidate(_row(count), _opened(turns, count, calls)) for count in counts),
            _row(counts[0]),
            warm_up=metric is P50,
        )
        for name, turns, metric in described
    )


def _row(count: int) -> str:
    return f"{count:,} executions"


@cache
def _kind(count: int) -> type[FilledServer]:
    """A service that is filled once, and then shared by all cases."""

    class Filled(FilledServer):
        def __init__(self, directory: object) -> None:
            super().__init__(directory, count)  # type: ignore[arg-type]

    return Filled


def _opened(turns: Turns, count: int, calls: int) -> Callable[[Lab], Opened]:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        yield from turns(lab.get(_kind(count)), count, calls)

    return opened


def _list(server: FilledServer, count: int, calls: int) -> Iterator[Turn]:
    with client(server) as opened:

        def call() -> None:
            newest = list(itertools.islice(opened.list(page_size=100), 100))
            if len(newest) != 100 or len({execution.exec_id for execution in newest}) != 100:
                raise Wrong(f"a page has {len(newest)} executions, not 100")

        yield lambda: by_one(call, calls)


def _poll(server: FilledServer, count: int, calls: int) -> Iterator[Turn]:
    """Each time another one, far from each other, as if nobody had asked for it lately."""
    with client(server) as opened:
        numbers = itertools.cycle(range(0, count, max(1, count // 499)))

        def call() -> None:
            name = f"copy-{next(numbers)}"
            if opened.get(name).exec_id != name:
                raise Wrong(f"a Poll of {name} answers for another")

        yield lambda: by_one(call, calls)


def _start(server: FilledServer, count: int, calls: int) -> Iterator[Turn]:
    with client(server) as opened:
        yield lambda: by_one(lambda: _run(opened), calls)


def _restart(server: FilledServer, count: int, calls: int) -> Iterator[Turn]:
    """Server and runner, both anew, until a first `true` has run."""

    def turn() -> Sample:
        server.stop()
        server.stop_runner()
        begun = time.perf_counter()
        server.start()
        with client(server) as opened:
            _run(opened)
        return {"time": time.perf_counter() - begun}

    yield turn


def _run(opened: Client) -> None:
    expect_status(opened.run(["true"]).returncode)


def _goal(case: str, metric: Metric) -> Goal:
    most, fewest = (Cell(case, _row(count), metric.name) for count in (COUNTS[-1], COUNTS[0]))
    return Goal(f"{case}: 100,000 of 1,000", most, "at most", FLAT, (fewest,))


BENCHMARK = Benchmark(
    name="growth",
    title="With many executions in the index",
    about="One execution was run, and copied into index and spool. The page cache is warm.",
    cases=cases,
    goals=(*(_goal(case, P50) for case in (LIST, POLL, START)), _goal(RESTART, SECONDS)),
)
