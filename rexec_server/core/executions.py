"""All executions of one server: starting them once, finding them, ending them, forgetting them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rexec_server.core import adoption, boot
from rexec_server.core.attendance import Attendance
from rexec_server.core.command import Command, Defaults, check_duration, check_exec_id
from rexec_server.core.engine import Engine, StdinPiece, StdinProgress
from rexec_server.core.entry import Entry
from rexec_server.core.errors import (
    AlreadyEnded,
    InvalidRequest,
    NotFound,
    OutOfRange,
    SlowReader,
    StdinClosed,
    StillRunning,
    Unavailable,
    WriterForgotten,
    WriterUnsupported,
)
from rexec_server.core.execution import Execution, Key
from rexec_server.core.fair_queue import FairQueue
from rexec_server.core.grant import UNRESTRICTED, Grant
from rexec_server.core.holders import Holders
from rexec_server.core.index import Index, Query, now_ns
from rexec_server.core.journal import Journal
from rexec_server.core.launch import Launch
from rexec_server.core.newest import Newest
from rexec_server.core.observer import Observer
from rexec_server.core.origin import Origin
from rexec_server.core.record import Record
from rexec_server.core.registry import Registry
from rexec_server.core.reservation import Ceilings, Reservation
from rexec_server.core.slices import Steps, sliced
from rexec_server.core.spool import Reason
from rexec_server.core.stdin_writers import MAX_WRITERS
from rexec_server.core.waker import Waker

_log = logging.getLogger(__name__)

ENGINE_RETRY_SECONDS = 0.2
# As many share a commit, whose sync costs more than they do.
RESERVATIONS_AT_ONCE = 32
# A long page keeps the index's thread busy: a start that comes meanwhile waits for one of them, and not for all.
LISTS_AT_ONCE = 1
# They keep the engine busy: more would wait there, where callers do not take turns.
STARTS_AT_ONCE = 3
# A start that takes longer waits for something else than the engine, a file system that hangs, say.
START_SECONDS = 0.25


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of everything there may be."""

    max_running: int = 64
    caller_running: int | None = None  # of one caller
    max_followers: int = 16_384
    caller_followers: int | None = None
    keep_count: int = 10_000
    keep_bytes: int = 10 * 1024**3


class Executions:
    """Every call that is about executions ends up here, whatever protocol it came by."""

    def __init__(
        self,
        index: Index,
        engine: Engine,
        waker: Waker,
        journal: Journal,
        defaults: Defaults,
        bounds: Bounds,
        observer: Observer,
    ) -> None:
        self._index, self._engine = index, engine
        self._defaults, self._bounds = defaults, bounds
        self._registry = Registry(index, engine, waker, journal, observer, self._see_to, self._spawn)
        self._boot_id = boot.boot_id()
        self._newest = Newest(index)
        self._reserving, self._starting = FairQueue(RESERVATIONS_AT_ONCE), FairQueue(STARTS_AT_ONCE)
        self._listing = FairQueue(LISTS_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._attendance = Attendance(
            self._registry, engine, bounds.max_followers, bounds.caller_followers, self._spawn
        )
        self.holders = Holders(engine, self._spawn)

    @property
    def live(self) -> list[Entry]:
        """Those that have not ended."""
        return list(self._registry.live.values())

    async def recover(self) -> None:
        """Takes up what was unfinished when the last server stopped, whatever became of it meanwhile."""
        await self._adopt()
        entries = [self._registry.remember(record) for record in await self._index.unfinished()]
        supervised: set[str] | None = None
        with contextlib.suppress(Unavailable):  # a runner that is older than the question
            supervised = await self._engine.supervised()
        for entry in entries:
            self._registry.watch(entry)
            if supervised is not None and entry.name in supervised:
                entry.note_supervised()
            elif supervised is not None:
                self._see_to(entry)
            self._spawn(entry.decide())
        await self._sweep()

    async def _adopt(self) -> None:
        """Takes up what the index does not know, as it is from a backup, or was lost: those ids stay used."""
        known = await self._index.names()
        names = [name for name in self._engine.names() if name not in known]
        found = adoption.find(self._engine.directory("."), names, self._defaults.retention) if names else []
        adopted = await self._index.adopt(found) if found else 0
        if adopted:
            _log.warning("took up %d executions from the spool that the index did not know", adopted)

    def _see_to(self, entry: Entry) -> None:
        """See to one of which nothing says that it lives, and nothing how it ended."""
        if not entry.ended and not entry.settling:
            self._spawn(self._settle(entry, "the server died before it was started"))

    async def _sweep(self) -> None:
        """Removes the output that a server forgot and then died. What the index does not know of is left alone."""
        for name in await self._index.forgotten():
            if os.path.isdir(self._engine.directory(name)):
                await self._engine.remove(name)

    async def exec(self, key: Key, command: Command, grant: Grant, origin: Origin) -> tuple[Entry, bool]:
        """Starts a command once. Returns when it runs, has ended or could not be started; and whether it had existed.

        The id is reserved, durably, before the spawn. What follows does not depend on the caller waiting for it.
        """
        launch = self._defaults.launch(command, grant)
        reservation = self._reservation(key, command, grant, origin)
        await self._engine.ready()
        reservation = replace(reservation, runner=self._engine.instance)
        ceilings = Ceilings(self._bounds.max_running, self._bounds.caller_running, grant.max_running)
        async with self._reserving.turn(key.caller):
            starting = self._spawn(self._reserve_and_start(reservation, ceilings, launch))
            starting.add_done_callback(_heard)
            entry, existed = await asyncio.shield(starting)
        await entry.decided.wait()
        return entry, existed

    async def repeated(self, key: Key, command: Command, origin: Origin) -> Entry | None:
        """The execution that this very request started before, if any: a retry gets it whatever is allowed by now."""
        reserved = await self._index.repeated(self._reservation(key, command, UNRESTRICTED, origin))
        if reserved is None:
            return None
        entry = self._registry.remember(reserved.record)
        await entry.decided.wait()
        return entry

    def _reservation(self, key: Key, command: Command, grant: Grant, origin: Origin) -> Reservation:
        """The request for the caller's id, or for one that we make. InvalidRequest."""
        named = bool(key.exec_id)
        if named:
            check_exec_id(key.exec_id)
        else:
            key = key._replace(exec_id=uuid.uuid4().hex)
        command.check()
        request = replace(self._defaults.request(command, grant), trace=self._registry.observer.trace())
        digest = command.digest(self._index.digest_key)
        return Reservation(key, named, uuid.uuid4().hex, digest, request, origin, now_ns(), self._boot_id)

    async def find(self, key: Key) -> Entry:
        """The execution of that name. NotFound."""
        entry = self._registry.get(key)
        if entry is None:
            record = await self._index.get(key)
            if record is None:
                raise NotFound(key.exec_id)
            entry = self._registry.remember(record)
        return entry

    async def newest(self, caller: str, group: str) -> Entry:
        """The caller's newest execution in an exclusive group. NotFound."""
        while (key := await self._newest.find(caller, group)) is not None:
            with contextlib.suppress(NotFound):  # it is being deleted just now; the one before it is that then
                return await self.find(key)
            self._newest.drop(caller, group)
        raise NotFound("", group)

    async def page(self, query: Query, caller: str) -> tuple[list[tuple[int, Execution]], bool]:
        """A page, newest first, each with the place that a page after it begins below; and whether there is more."""
        async with self._listing.turn(caller):
            records = await self._index.page(replace(query, page_size=query.page_size + 1))
        found = await sliced(self._shown(records[: query.page_size]))
        return found, len(records) > query.page_size

    def _shown(self, records: Sequence[Record]) -> Steps[list[tuple[int, Execution]]]:
        found = []
        for record in records:
            execution = record.execution
            entry = self._registry.get(execution.key)
            if entry:
                with contextlib.suppress(OSError):  # `shown` knows what to do
                    yield from entry.catch_up()
                execution = entry.shown()
            found.append((record.seq, execution))
            yield
        return found

    async def signal(self, entry: Entry, number: int, group: bool) -> None:
        """Delivers a signal. InvalidRequest, AlreadyEnded."""
        if number not in signal.valid_signals():
            raise InvalidRequest("signal", f"{number} is no signal of this system; see signal(7)")
        if entry.ended or not await self._engine.signal(entry.name, number, group):
            raise AlreadyEnded(entry.key.exec_id)

    async def cancel(self, entry: Entry, grace: float | None, reason: Reason = Reason.CANCELLED) -> None:
        """Begins to end the command and all it started; nothing on one that has ended. grace is in seconds."""
        check_duration("kill_grace", grace)
        if not entry.ended:
            await self._engine.end(entry.name, reason, grace)

    async def write_stdin(self, entry: Entry, piece: StdinPiece, timeout: float) -> StdinProgress:
        """Writes standard input. StdinClosed, OutOfRange, WriterForgotten, SlowReader after `timeout` seconds."""
        exec_id = entry.key.exec_id
        if entry.ended or not entry.execution.request.stdin_open:
            raise StdinClosed(f"execution {exec_id!r} has no open standard input")
        try:
            async with asyncio.timeout(timeout):
                progress = await self._engine.write_stdin(entry.name, piece)
        except TimeoutError:
            raise SlowReader(entry.stdin_written(piece.writer)) from None
        match progress.error:
            case None:
                return progress
            case "beyond":
                raise OutOfRange("offset", piece.offset, progress.bytes_written)
            case "uncertain":
                why = "a supervisor died while it wrote: how far standard input got cannot be known"
                raise StdinClosed(why, still_open=True)
            case "forgotten":
                raise WriterForgotten(exec_id, MAX_WRITERS)
            case "nameless":
                raise WriterUnsupported(exec_id)
        raise StdinClosed(f"execution {exec_id!r} has closed its standard input")

    async def delete(self, entry: Entry) -> None:
        """Forgets output and record; the id stays used. StillRunning."""
        if not entry.ended:
            raise StillRunning(entry.key.exec_id)
        # Not half of it, should the caller go away meanwhile: the tombstone alone would leave the output behind.
        await asyncio.shield(self._spawn(self._forget(entry.name, entry.execution)))

    @contextlib.contextmanager
    def watched(self, entry: Entry) -> Iterator[None]:
        """Each batch of output wakes who waits for the entry, for the time of this block."""
        self._registry.watch_output(entry)
        try:
            yield
        finally:
            self._registry.unwatch_output(entry)

    def attended(self, entry: Entry, caller: str) -> AbstractContextManager[None]:
        """Somebody follows for the time of this block. Exhausted when too many do."""
        return self._attendance.of(entry, caller)

    async def prune(self, check_excess: bool) -> None:
        """Forgets what has expired and, if asked to, what is too much. A live execution is never touched."""
        superfluous = await self._index.expired()
        if check_excess:
            superfluous += await self._index.excess(self._bounds.keep_count, self._bounds.keep_bytes)
            self._index.drop_old_tombstones()
            self._index.drop_expired_tokens(now_ns())
        for record in superfluous:
            await self._forget(record.name, record.execution)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake_all(self) -> None:
        """Whoever waits for an execution looks again: the server stops."""
        self._registry.wake_all()

    async def _reserve_and_start(
        self, reservation: Reservation, ceilings: Ceilings, launch: Launch
    ) -> tuple[Entry, bool]:
        reserved = await self._index.reserve(reservation, ceilings)
        entry = self._registry.remember(reserved.record)
        if not reserved.existed:
            self._newest.note(reserved.record)
            self._spawn(self._start(entry, launch, adoption.described(reservation)))
        return entry, reserved.existed

    async def _start(self, entry: Entry, launch: Launch, reserved: dict[str, Any]) -> None:
        """Asks the engine to start it. When it is not known whether that happened, makes sure of one or the other."""
        began = now_ns()
        try:
            try:
                async with self._starting.turn(entry.key.caller, START_SECONDS):
                    start_error = await self._engine.start(entry.name, launch, reserved)
                self._registry.observer.spawned(entry.name, entry.execution, began, start_error)
            except Unavailable as error:
                start_error = None
                await self._settle(entry, f"the engine did not answer: {error.message}")
            if not start_error or os.path.isdir(entry.directory):
                self._registry.watch(entry)
            if start_error:
                await self._registry.settle_not_started(entry, start_error)
            await entry.decide()  # another runner may have begun to start it, and its shim may not have come so far
        finally:
            entry.decided.set()

    async def _settle(self, entry: Entry, why: str) -> None:
        """Have its end made certain, however long the engine is away. why: if its start never came."""
        entry.settling = True
        try:
            while not entry.ended:
                with contextlib.suppress(Unavailable):
                    return await self._engine.settle(
                        entry.name, why, entry.boot_id, entry.meant_for, entry.extent().produced
                    )
                await asyncio.sleep(ENGINE_RETRY_SECONDS)
        finally:
            entry.settling = False

    async def _forget(self, name: str, execution: Execution) -> None:
        """The tombstone first: a directory without an entry is swept later, an entry without output would lie."""
        if await self._index.delete(name, now_ns()):
            self._registry.forget(execution.key)
            self._newest.forget(execution)
            await self._engine.remove(name)

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _heard(task: asyncio.Task[Any]) -> None:
    """Its failure is its caller's to know, who may have gone: then it is no defect that nobody asks for it."""
    if not task.cancelled():
        task.exception()
