"""One line to a thousand followers; and what ten thousand idle ones take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.candidates import names, rexec
from bench.lab import Lab, end
from bench.load import latencies
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Size, Turn
from bench.ports import free_port, wait_for_port
from bench.processes import pss
from bench.verify import Wrong

ACTIVE, IDLE = "a line to 1,000 followers", "10,000 idle followers"
SOCKETS = "raw sockets, asyncio (limit)"
LINES = 5
# Each line of standard input becomes a line that says when it was written.
_COMMAND = "import sys, time\nfor _ in sys.stdin: print(time.monotonic_ns(), flush=True)"
# Longer than a thousand followers take for a line, in seconds.
BETWEEN_LINES = 0.5


class Source:
    """What is followed: its server's process, how to begin as a follower of it, and how it is made to write a line."""

    def __init__(self, pid: int, arguments: Sequence[str], write: Callable[[], None]) -> None:
        self.pid = pid
        self.arguments = arguments
        self.write = write


@contextmanager
def _rexec(lab: Lab) -> Iterator[Source]:
    """A server of its own, as it is weighed."""
    with lab.own(rexec.RexecServer, "--no-gateway") as server, rexec.client(server) as client:
        handle = client.start([sys.executable, "-c", _COMMAND], stdin=True)
        try:
            yield Source(
                server.pid, ("rexec", server.target, "{count}", "{lines}", handle.exec_id), lambda: handle.write("\n")
            )
        finally:
            handle.cancel(kill_grace=0)
            handle.wait(30)


@contextmanager
def _sockets(_: Lab) -> Iterator[Source]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.candidates.broadcast", str(port)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    pipe = process.stdin

    def write() -> None:
        pipe.write(b"\n")
        pipe.flush()

    try:
        wait_for_port(port, process)
        yield Source(process.pid, ("socket", str(port), "{count}", "{lines}"), write)
    finally:
        end(process)


SOURCES = ((names.REXEC_RAW, _rexec), (SOCKETS, _sockets))


def cases(size: Size) -> Sequence[Case]:
    active, idle = size.pick(1_000, 1_000, 20), size.pick(10_000, 2_000, 50)
    memory = Metric("memory", "KB/follower")
    return (
        Case(
            ACTIVE,
            (Metric("p99", "ms"), Metric("p50", "ms")),
            tuple(Candidate(name, _opened(source, active, idle=False)) for name, source in SOURCES),
            SOCKETS,
            warm_up=False,
        ),
        Case(
            IDLE,
            (memory, Metric("p99", "ms")),
            tuple(Candidate(name, _opened(source, idle, idle=True), once=True) for name, source in SOURCES),
            SOCKETS,
            warm_up=False,
        ),
    )


def _opened(source: Callable[[Lab], Iterator[Source]], count: int, *, idle: bool) -> Callable[[Lab], Iterator[Turn]]:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with source(lab) as opened_source:
            yield lambda: _turn(opened_source, count, idle=idle)

    return opened


def _turn(source: Source, count: int, *, idle: bool) -> dict[str, float]:
    """The first line warms up; of idle followers the memory is taken before any line."""
    lines = 2 if idle else LINES + 1
    before = pss([source.pid])
    arguments = [argument.format(count=count, lines=lines) for argument in source.arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.candidates.followers", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise Wrong("the followers did not begin")
        memory = (pss([source.pid]) - before) / count
        for _ in range(lines):
            source.write()
            time.sleep(BETWEEN_LINES * max(1, count / 1000))
        times = json.loads(process.stdout.readline())
    finally:
        end(process)
    if len(times) != lines * count:
        raise Wrong(f"{count} followers had {len(times)} lines together, not {lines} each")
    measured = [taken for follower in range(count) for taken in times[follower * lines + 1 : (follower + 1) * lines]]
    return latencies(measured) | {"memory": memory / 1e3}


BENCHMARK = Benchmark(
    name="fan-out",
    title="Many followers of one command",
    about="Followers are one asyncio process over ten connections, which shares the processor with the server. "
    "Memory is the server's PSS, with all of them attached less with none.",
    cases=cases,
    pictured=(ACTIVE, IDLE),
    goals=(
        Goal("p99 of a line to 1,000", Cell(ACTIVE, names.REXEC_RAW, "p99"), "at most", 100, unit="ms"),
        Goal("memory of an idle one", Cell(IDLE, names.REXEC_RAW, "memory"), "at most", 25, unit="KB"),
    ),
)
