"""Many idle followers of one command: what each costs, who waits for them, and how soon all have a line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil
from rexec.v1 import execution_service_pb2 as api

from tests.load.calls import poll_latency
from tests.load.census import Census, census, pss, settled
from tests.load.figures import Latency, Row, kilobytes, shown
from tests.servers import Server
from tests.waiting import eventually

# Of one client process; a stream costs a Python client some 30 KB, and time for each message.
CROWD = 2500
# As many as a production server allows on one connection.
PER_CONNECTION = 1000
FOLLOWED = "followed"
# It says when it wrote: so the way to the followers is measured, and not the way to the command.
COMMAND = "import sys, time\nfor _ in sys.stdin:\n    print(time.monotonic_ns(), flush=True)"


@dataclass(frozen=True)
class FollowerFigures:
    """Of `count` followers; `lines` has one Latency for each line, over all followers."""

    count: int
    attached: int
    attach_seconds: float
    bytes_each: float
    idle_cpu: float  # share of a core that the server needs while nothing happens but heartbeats
    polls_before: Latency
    polls_meanwhile: Latency
    lines: list[Latency]
    ended: int
    broken: Counter[str]
    census_before: Census
    census_after: Census

    def rows(self) -> Sequence[Row]:
        middle = sorted(self.lines, key=lambda line: line.p99)[len(self.lines) // 2]
        return [
            (f"{self.count:,} followers", f"{self.attached:,} attached in {self.attach_seconds:.1f} s"),
            ("memory of each, in the server", kilobytes(self.bytes_each)),
            ("the server while they are idle, heartbeats included", f"{self.idle_cpu * 100:.1f} % of a core"),
            ("a poll before", str(self.polls_before)),
            ("a poll meanwhile", str(self.polls_meanwhile)),
            (f"one line to all of them, median of {len(self.lines)}", str(middle)),
            ("had the end", f"{self.ended:,}; the others: {shown(self.broken) or 'none'}"),
        ]


class _Crowd:
    """One client process."""

    def __init__(self, server: Server, count: int) -> None:
        arguments = [server.target, FOLLOWED, str(count), str(-(-count // PER_CONNECTION))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.crowd", *arguments], stdout=subprocess.PIPE, text=True
        )

    def hears(self) -> dict[str, Any]:
        """The next thing that it tells."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "a client process has died"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()


def flags(count: int) -> Sequence[str]:
    """Of a server that allows so many."""
    return ("--max-followers", str(count))


def measure_followers(server: Server, count: int, polls: int, lines: int, idle_seconds: float) -> FollowerFigures:
    """Attaches `count` followers to one command, has it write `lines` lines one by one, and ends it."""
    _start(server)
    before, census_before = pss(server.pid), census(server)
    polls_before = poll_latency(server, FOLLOWED, polls)
    with ExitStack() as stack:
        begun = time.monotonic()
        crowds = [_Crowd(server, size) for size in _sizes(count)]
        for crowd in crowds:
            stack.callback(crowd.close)
        attached = sum(crowd.hears()["attached"] for crowd in crowds)
        attach_seconds = time.monotonic() - begun
        bytes_each = (pss(server.pid) - before) / count
        idle_cpu = _idle_cpu(server, idle_seconds) if idle_seconds else 0.0
        polls_meanwhile = poll_latency(server, FOLLOWED, polls)
        latencies = [_line(server, crowds, number) for number in range(lines)]
        server.stub.Cancel(api.CancelRequest(exec_id=FOLLOWED), timeout=60)
        ends = [crowd.hears() for crowd in crowds]
    eventually(lambda: _followers(server) == 0, within=60)
    return FollowerFigures(
        count, attached, attach_seconds, bytes_each, idle_cpu, polls_before, polls_meanwhile, latencies,
        sum(end["ended"] for end in ends), sum((Counter(end["broken"]) for end in ends), Counter[str]()),
        census_before, settled(server, census_before),
    )  # fmt: skip


def _start(server: Server) -> None:
    """The command; and one follower, so that what the first one costs is not counted."""
    request = api.ExecRequest(
        exec_id=FOLLOWED, arguments=[sys.executable, "-c", COMMAND], stdin_mode=api.STDIN_MODE_OPEN
    )
    server.stub.Exec(request, timeout=60)
    stream = server.stub.Follow(api.FollowRequest(exec_id=FOLLOWED), timeout=60)
    next(stream)
    stream.cancel()
    eventually(lambda: _followers(server) == 0, within=60)


def _line(server: Server, crowds: Sequence[_Crowd], number: int) -> Latency:
    """One line of output, until everybody has it."""
    request = api.WriteStdinRequest(exec_id=FOLLOWED, offset=number, data=b"\n")
    server.stub.WriteStdin(request, timeout=60)
    return Latency.of([seconds for crowd in crowds for seconds in crowd.hears()["seconds"]])


def _idle_cpu(server: Server, seconds: float) -> float:
    """The server's processor time while it is left alone, as a share of one core."""
    process = psutil.Process(server.pid)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - begun)


def _followers(server: Server) -> int:
    return server.stub.Poll(api.PollRequest(exec_id=FOLLOWED), timeout=60).execution.followers


def _sizes(count: int) -> list[int]:
    """How many followers each client process has; at least two, as there are two cores."""
    processes = max(2, -(-count // CROWD))
    return [count // processes + (number < count % processes) for number in range(processes)]
