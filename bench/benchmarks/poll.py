"""Poll of a running execution: whether the size of its log matters; and the gateway's beside the naive server's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rexec.v1 import execution_service_pb2 as api

from bench.candidates import names, rexec
from bench.candidates.big_file import BLOCK, LINE, big_file
from bench.candidates.naive_client import Json, NaiveServer, connection
from bench.lab import Lab
from bench.load import by_one, by_threads
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Opened, Size, Turn
from bench.verify import Wrong, expect_output
from rexec_client import ExecutionHandle

TAILS = (3, 1000)
SMALL, BIG = "log of 1 MB", "log of 1 GB"
CONNECTIONS = (1, 16)
# A command that goes on writing lines, for those who poll.
_TALKS = "import itertools, time\nfor number in itertools.count(): print(number, flush=True); time.sleep(0.01)"
_METRICS = (Metric("p50", "ms"), Metric("p99", "ms"), Metric("rate", "/s", "higher"))
_RATE_FIRST = (_METRICS[2], *_METRICS[:2])

Call = Callable[[], None]


def cases(size: Size) -> Sequence[Case]:
    count, length = size.pick(300, 100, 5), size.pick(1_000, 100, 5) * 1_000_000
    sizes = ((SMALL, 1_000_000), (BIG, length))
    tails = [
        Case(
            _tail(lines),
            _METRICS,
            (
                *(Candidate(_row(names.REXEC, log), _library(lines, bytes_, count)) for log, bytes_ in sizes),
                *(Candidate(_row(names.REXEC_RAW, log), _raw(lines, bytes_, count)) for log, bytes_ in sizes),
            ),
            _row(names.REXEC, SMALL),
        )
        for lines in TAILS
    ]
    http = [
        Case(
            _http(connections),
            _RATE_FIRST,
            (
                Candidate(names.REXEC_GATEWAY, _gateway(connections, count)),
                Candidate(names.NAIVE, _naive(connections, count)),
            ),
            names.NAIVE,
        )
        for connections in CONNECTIONS
    ]
    return (*tails, *http)


def _row(name: str, log: str) -> str:
    return f"{name}, {log}"


def _tail(lines: int) -> str:
    return f"Poll, tail of {lines:,}"


def _http(connections: int) -> str:
    return f"JSON over HTTP, {connections} connection{'s' if connections > 1 else ''}"


def _library(lines: int, length: int, count: int) -> Callable[[Lab], Opened]:
    expected = BLOCK[-lines * LINE :]

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with _running(lab, length) as handle:

            def call() -> None:
                polled = handle.poll(tail_lines=lines)
                if not polled.execution.pid or polled.eof:
                    raise Wrong("it does not run")
                expect_output(b"".join(chunk.data for chunk in polled.chunks), expected)

            yield lambda: by_one(call, count)

    return opened


def _raw(lines: int, length: int, count: int) -> Callable[[Lab], Opened]:
    expected = BLOCK[-lines * LINE :]

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with _running(lab, length) as handle, rexec.stub(lab.get(rexec.RexecServer)) as stub:
            request = api.PollRequest(exec_id=handle.exec_id, tail_lines=lines)

            def call() -> None:
                expect_output(b"".join(chunk.data for chunk in stub.Poll(request).chunks), expected)

            yield lambda: by_one(call, count)

    return opened


@contextmanager
def _running(lab: Lab, length: int) -> Iterator[ExecutionHandle]:
    """An execution that has written so much, and goes on running."""
    path = big_file(lab, length)
    with rexec.client(lab.get(rexec.RexecServer)) as client:
        handle = client.start(f"cat {path}; exec sleep 3600", shell=True, max_output=length * 2)
        at = 0
        while at < length:
            handle.poll(since=at, max_bytes=1, wait=10)
            at = handle.execution.log_end_offset
        try:
            yield handle
        finally:
            handle.cancel(kill_grace=0)
            handle.wait(30)
            client.delete(handle.exec_id)


def _gateway(connections: int, count: int) -> Callable[[Lab], Opened]:
    """The caller's one command, polled by its callers."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        port = lab.get(rexec.RexecServer).gateway_port
        with connection(port) as starting:
            answer = starting.post("/api/exec/poller", {"cmd": subprocess.list2cmdline([sys.executable, "-c", _TALKS])})
            if answer["status"] != "accepted":
                raise Wrong(f"the gateway says {answer}")
            try:
                with _polls(port, "/api/poll/poller", connections, count) as turn:
                    yield turn
            finally:
                starting.post("/api/cancel/poller", {})
                while starting.post("/api/poll/poller")["status"] == "running":
                    pass  # until it has ended, it is that caller's one command

    return opened


def _naive(connections: int, count: int) -> Callable[[Lab], Opened]:
    """A server of its own, as what it has started ends only with it."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with lab.own(NaiveServer) as server, connection(server.port) as starting:
            key = starting.post("/exec", {"cmd": [sys.executable, "-c", _TALKS]})["id"]
            with _polls(server.port, f"/poll/{key}?lines=3", connections, count) as turn:
                yield turn

    return opened


@contextmanager
def _polls(port: int, path: str, connections: int, count: int) -> Iterator[Turn]:
    with ExitStack() as stack:
        calls = [_poll(stack.enter_context(connection(port)), path) for _ in range(connections)]
        for call in calls:
            call()
        yield lambda: by_one(calls[0], count) if connections == 1 else by_threads(calls, max(count * 2, connections))


def _poll(server: Json, path: str) -> Call:
    def call() -> None:
        answer: dict[str, Any] = server.post(path)
        lines = answer["output"].split()
        if answer["status"] != "running" or len(lines) > 3 or lines != sorted(lines, key=int):
            raise Wrong(f"a poll answers {answer}")

    return call


BENCHMARK = Benchmark(
    name="poll",
    title="Poll of a running command",
    about="The newest lines of a small log and of a big one; then JSON polls of a command that writes 100 lines a "
    "second, the gateway's beside the naive server's. Both are served by cheroot.",
    cases=cases,
    pictured=(_http(1), _http(16)),
    goals=(
        *(
            Goal(
                f"p50 with a log of 1 GB, of that with 1 MB, tail of {lines:,}",
                Cell(_tail(lines), _row(names.REXEC, BIG), "p50"), "at most", 1.2,
                (Cell(_tail(lines), _row(names.REXEC, SMALL), "p50"),),
            )
            for lines in TAILS
        ),
        *(
            Goal(
                f"the gateway's rate, of the naive server's, {_http(number).removeprefix('JSON over HTTP, ')}",
                Cell(_http(number), names.REXEC_GATEWAY, "rate"), "at least", 1.0,
                (Cell(_http(number), names.NAIVE, "rate"),),
            )
            for number in CONNECTIONS
        ),
    ),
)  # fmt: skip
