"""From the command's write to the client having the line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.candidates import names, transfers
from bench.candidates.transfers import Opener
from bench.lab import Lab
from bench.load import latencies
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Size, Turn
from bench.verify import Wrong

CASE = "1 follower"
PIPE = "a pipe (limit)"
# Each line is the time at which it is written, by the clock that all processes of the machine share.
_COMMAND = """
import sys, time
for _ in range(int(sys.argv[1])):
    time.sleep(0.005)
    print(time.monotonic_ns(), flush=True)
"""


class Stamps:
    """Lines that say when they were written; how long each took to get here, in seconds."""

    def __init__(self, count: int) -> None:
        self.times: list[float] = []
        self._count = count
        self._begun = b""

    def feed(self, piece: bytes) -> None:
        now = time.monotonic_ns()
        *lines, self._begun = (self._begun + piece).split(b"\n")
        self.times += [(now - int(line)) / 1e9 for line in lines]

    def finish(self) -> None:
        if self._begun or len(self.times) != self._count:
            raise Wrong(f"the output has {len(self.times)} lines, not {self._count}")


def cases(size: Size) -> Sequence[Case]:
    count = size.pick(300, 100, 10)
    openers = (
        (names.REXEC, transfers.library),
        (names.REXEC_RAW, transfers.raw),
        (names.REXEC_CLI, transfers.command_line),
        (names.REXEC_GATEWAY, transfers.gateway),
        (names.SSH, transfers.ssh),
        (names.MASTER, transfers.master),
        (names.ASYNCSSH, transfers.asyncssh),
        (names.PARAMIKO, transfers.paramiko),
        (names.NAIVE, transfers.naive),
        (PIPE, transfers.piped),
    )
    candidates = tuple(_candidate(name, opener, count) for name, opener in openers)
    return (Case(CASE, (Metric("p50", "ms"), Metric("p99", "ms")), candidates, names.MASTER, warm_up=False),)


def _candidate(name: str, opener: Opener, count: int) -> Candidate:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with opener(lab, [sys.executable, "-c", _COMMAND, str(count)]) as transfer:

            def turn() -> dict[str, float]:
                stamps = Stamps(count)
                transfer(stamps.feed)
                stamps.finish()
                return latencies(stamps.times)

            yield turn

    return Candidate(name, opened)


BENCHMARK = Benchmark(
    name="wake-up",
    title="From a line's write to its reader",
    about="A command writes a line each 5 ms, and in it the time. The naive server's client polls each millisecond.",
    cases=cases,
    pictured=(CASE,),
    goals=(
        Goal("p50 of the client library", Cell(CASE, names.REXEC, "p50"), "at most", 2, unit="ms"),
        Goal("p99 of the client library", Cell(CASE, names.REXEC, "p99"), "at most", 10, unit="ms"),
    ),
)
