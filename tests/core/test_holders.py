"""What holders cost while they come and go: nothing of them stays, and a supervisor hears of them in measure."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rexec_server.core.attendance import LEAST_SECONDS
from rexec_server.core.entry import Entry
from rexec_server.core.execution import Execution, Key, Request, State
from rexec_server.core.holders import Holders
from rexec_server.core.record import Record
from rexec_server.core.spool import ExitRecord, Reason

NEVER = 3600.0


class Supervisors:
    """An engine that notes when it was told that somebody holds."""

    def __init__(self) -> None:
        self.attended: list[float] = []
        self.thrice = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def attend(self, name: str, *, holder: bool = False) -> None:
        assert holder
        self.attended.append(asyncio.get_running_loop().time())
        if len(self.attended) == 3:
            self.thrice.set()
        await asyncio.sleep(0)

    async def hold(self, name: str, floor: int) -> None:
        await asyncio.sleep(0)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def waits(directory: Path, waiting_timeout: float) -> Entry:
    """A command with OVERFLOW_WAIT that runs."""
    execution = Execution(Key("me", "x"), State.RUNNING, Request(waits=True, output_bytes=1000), 0)
    entry = Entry(Record(1, "name", execution), str(directory))
    entry.waiting_timeout = waiting_timeout
    entry.decided.set()
    return entry


def test_of_what_has_ended_nothing_stays(tmp_path: Path) -> None:
    """A hundred executions that ended while they were held are forgotten as soon as their holders have left."""

    async def scenario() -> list[weakref.ref[Entry]]:
        engine = Supervisors()
        holders, seen = Holders(engine, engine.spawn), []  # type: ignore[arg-type]
        for _ in range(100):
            entry = waits(tmp_path, NEVER)
            seen.append(weakref.ref(entry))
            with holders.attached(entry, "me", 0):
                await asyncio.sleep(0)
                holders.acknowledge(entry, "another", 0, release=False)
                entry.settle(ExitRecord(Reason.EXITED, 1, 0, 0, output_complete=True, exit_code=0))
        del entry
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        left = [one for one in seen if one() is not None]
        await engine.stop()
        return left

    assert asyncio.run(scenario()) == []


def test_many_acknowledgements_are_one_visit(tmp_path: Path) -> None:
    """A holder without a Follow is told to the supervisor once for what comes meanwhile, not once for each call."""

    async def scenario() -> int:
        engine = Supervisors()
        holders, entry = Holders(engine, engine.spawn), waits(tmp_path, NEVER)  # type: ignore[arg-type]
        for _ in range(1000):
            holders.acknowledge(entry, "me", 0, release=False)
        await asyncio.sleep(0)
        await engine.stop()
        return len(engine.attended)

    assert asyncio.run(scenario()) == 1


def test_a_time_of_nothing_is_no_loop(tmp_path: Path) -> None:
    """However short the time is that a command may wait, its supervisor is told at intervals."""

    async def scenario() -> list[float]:
        engine = Supervisors()
        holders, entry = Holders(engine, engine.spawn), waits(tmp_path, 0.0)  # type: ignore[arg-type]
        with holders.attached(entry, "me", 0):
            await engine.thrice.wait()
        await engine.stop()
        return engine.attended[:3]

    first, second, third = asyncio.run(scenario())
    assert min(second - first, third - second) >= LEAST_SECONDS / 2
