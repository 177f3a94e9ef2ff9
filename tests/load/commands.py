"""Many commands at once: whether each is started and ended as asked, and what it costs while it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.load.calls import CALL_SECONDS, Stub, at_once, outcome, poll_latency
from tests.load.census import Census, Memory, census, memory, settled
from tests.load.figures import Latency, Row, kilobytes, shown
from tests.servers import Server

COMMAND = ("sleep", "3600")
# One runs all the time, so that what the first one costs is not counted.
FIRST = "first"


@dataclass(frozen=True)
class CommandFigures:
    """Of `count` commands at once; `started` and `ended` count outcomes."""

    count: int
    started: Counter[str]
    start_seconds: float
    before: Memory
    meanwhile: Memory
    polls_before: Latency
    polls_meanwhile: Latency
    ended: Counter[str]
    end_seconds: float
    census_before: Census
    census_meanwhile: Census
    census_after: Census

    def rows(self) -> Sequence[Row]:
        shim = (self.meanwhile.shims - self.before.shims) / self.count
        runner = (self.meanwhile.runner - self.before.runner) / self.count
        server = (self.meanwhile.server - self.before.server) / self.count
        command = (self.meanwhile.commands - self.before.commands) / self.count
        return [
            (f"{self.count:,} `Exec` at once", f"{shown(self.started)} in {self.start_seconds:.1f} s"),
            ("memory of each: its shim", kilobytes(shim)),
            ("memory of each: in the runner", kilobytes(runner)),
            ("memory of each: in the server", kilobytes(server)),
            ("memory of each: all of rexec", kilobytes(shim + runner + server)),
            ("memory of each: the command itself, `sleep`", kilobytes(command)),
            ("a poll before", str(self.polls_before)),
            ("a poll meanwhile", str(self.polls_meanwhile)),
            (f"{self.count:,} `Cancel` at once", f"{shown(self.ended)} in {self.end_seconds:.1f} s"),
        ]


def flags(count: int) -> Sequence[str]:
    """Of a server that allows so many."""
    return ("--max-running", str(count + 1))


def measure_commands(server: Server, count: int, polls: int) -> CommandFigures:
    """Starts `count` commands at once, looks, and ends them at once."""
    names = [f"load-{number}" for number in range(count)]
    server.stub.Exec(api.ExecRequest(exec_id=FIRST, arguments=COMMAND), timeout=60)
    before, census_before = memory(server), census(server)
    polls_before = poll_latency(server, FIRST, polls)
    begun = time.monotonic()
    started = at_once(server, names, _exec)
    start_seconds = time.monotonic() - begun
    meanwhile, census_meanwhile = memory(server), census(server)
    polls_meanwhile = poll_latency(server, names[-1], polls)
    begun = time.monotonic()
    ended = at_once(server, names, _cancel_and_wait)
    end_seconds = time.monotonic() - begun
    at_once(server, names, _delete)
    server.stub.Cancel(api.CancelRequest(exec_id=FIRST), timeout=60)
    return CommandFigures(
        count, started, start_seconds, before, meanwhile, polls_before, polls_meanwhile, ended, end_seconds,
        census_before, census_meanwhile, settled(server, census_before),
    )  # fmt: skip


async def _exec(stub: Stub, name: str) -> str:
    request = api.ExecRequest(exec_id=name, arguments=COMMAND)
    return outcome((await stub.Exec(request, timeout=CALL_SECONDS)).execution)


async def _cancel_and_wait(stub: Stub, name: str) -> str:
    await stub.Cancel(api.CancelRequest(exec_id=name), timeout=CALL_SECONDS)
    request = api.PollRequest(exec_id=name, tail_bytes=0)
    request.wait.FromSeconds(60)
    while True:
        execution = (await stub.Poll(request, timeout=CALL_SECONDS)).execution
        if execution.state != pb.STATE_RUNNING:
            return outcome(execution)


async def _delete(stub: Stub, name: str) -> str:
    await stub.Delete(api.DeleteRequest(exec_id=name), timeout=CALL_SECONDS)
    return "deleted"
