"""Many short runs: what grows."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rexec.v1 import execution_service_pb2 as api

from tests.load.calls import CALL_SECONDS, Stub, at_once, outcome
from tests.load.census import Census, Memory, memory, settled
from tests.load.figures import Row, kilobytes, shown
from tests.servers import Server

# So many run at the same time.
HANDS = 8
FLAGS = ("--max-running", str(HANDS))

# Each kind of end, and how it is told.
KINDS = (
    (("true",), "exited"),
    (("sh", "-c", "echo out; echo err >&2; exit 3"), "exited"),
    (("seq", "1000"), "exited"),
    (("/no/such/program",), "start_failed"),
    (("sh", "-c", "kill -9 $$"), "signaled"),
    (("sh", "-c", "sleep 300 & exit 0"), "exited"),
)


@dataclass(frozen=True)
class SoakFigures:
    """Of `count` runs after a warm-up; `outcomes` counts those that ended as they must, and the others by how."""

    count: int
    seconds: float
    outcomes: Counter[str]
    before: Census
    after: Census
    memory_before: Memory
    memory_after: Memory
    index_bytes: int  # more than before

    def rows(self) -> Sequence[Row]:
        counts = zip(Census._fields, self.before, self.after, strict=True)
        return [
            (f"{self.count:,} runs, {HANDS} at a time", f"{shown(self.outcomes)} in {self.seconds:.0f} s"),
            *((name.replace("_", " "), f"{old} before, {new} after") for name, old, new in counts),
            ("memory of the server", _growth(self.memory_before.server, self.memory_after.server)),
            ("memory of the runner", _growth(self.memory_before.runner, self.memory_after.runner)),
            ("index, as ids stay used", f"{self.index_bytes / self.count:.0f} bytes more for each run"),
        ]


def measure_soak(server: Server, count: int, warm_up: int) -> SoakFigures:
    """Runs and deletes `warm_up` and then `count` commands of all kinds. The server has FLAGS."""
    _run(server, "warm", warm_up)
    before, memory_before, index_before = settled(server), memory(server), _index_bytes(server)
    begun = time.monotonic()
    outcomes = _run(server, "soak", count)
    seconds = time.monotonic() - begun
    after = settled(server, before)
    grown = _index_bytes(server) - index_before
    return SoakFigures(count, seconds, outcomes, before, after, memory_before, memory(server), grown)


def _run(server: Server, prefix: str, count: int) -> Counter[str]:
    return at_once(server, [f"{prefix}-{number}" for number in range(count)], _exec_and_delete, HANDS)


async def _exec_and_delete(stub: Stub, name: str) -> str:
    arguments, expected = KINDS[int(name.rpartition("-")[2]) % len(KINDS)]
    request = api.ExecRequest(exec_id=name, arguments=arguments)
    request.wait.FromSeconds(60)
    came = outcome((await stub.Exec(request, timeout=CALL_SECONDS)).execution)
    await stub.Delete(api.DeleteRequest(exec_id=name), timeout=CALL_SECONDS)
    return "as expected" if came == expected else f"{' '.join(arguments)}: {came}"


def _index_bytes(server: Server) -> int:
    """Its pages, whether they are in the file already or still in the write-ahead log, which does not grow for ever."""
    with contextlib.closing(sqlite3.connect(server.state_dir / "index.sqlite")) as index:
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return int(index.execute(query).fetchone()[0])


def _growth(before: int, after: int) -> str:
    return f"{kilobytes(before)} before, {kilobytes(after)} after"
