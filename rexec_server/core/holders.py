"""Holders of all executions: they come, acknowledge and leave, and the supervisors hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rexec_server.core.attendance import Spawn, until_next
from rexec_server.core.engine import Engine
from rexec_server.core.entry import Entry
from rexec_server.core.errors import InvalidRequest, NothingHeld, OutOfRange, Unavailable
from rexec_server.core.holding import GONE_SECONDS, Holder, Holding

# A supervisor is told of a new floor at most this often, or when an eighth of the limit has been used up: it can drop
# nothing smaller.
TELL_SECONDS = 0.1
TELL_PARTS = 8
MAX_NAME = 64


class Holders:
    """The one place where a floor moves. `spawn` begins a task that ends with the server."""

    def __init__(self, engine: Engine, spawn: Spawn) -> None:
        self._engine = engine
        self._spawn = spawn
        self._telling: dict[Entry, asyncio.Event] = {}  # set: enough was used up to tell at once
        self._attending: dict[Entry, asyncio.Task[None]] = {}
        self._leaving: set[Entry] = set()  # their supervisors are being told that the last holder has left

    @contextmanager
    def attached(self, entry: Entry, name: str, offset: int | None) -> Iterator[Holder | None]:
        """Attach a holder for the time of this block. InvalidRequest, Exhausted.

        An empty name holds nothing, nor does one that comes after the end.
        """
        if not name:
            yield None
            return
        _check(name)
        if not entry.execution.request.waits:
            raise InvalidRequest("holder", f"execution {entry.key.exec_id!r} was not started with OVERFLOW_WAIT")
        if entry.ended:  # from now on nothing is dropped
            yield None
            return
        holding = entry.hold()
        holder = holding.holder(name, offset, entry.extent().start, _now())
        holder.attached += 1
        self._moved(entry, holding)
        self._attend(entry)
        try:
            yield holder
        finally:
            holder.attached -= 1
            holder.left_at = _now()
            self._leave(entry, holding)

    def acknowledge(self, entry: Entry, name: str, offset: int, release: bool) -> None:
        """Note that all before an offset is used up; the holder may leave. InvalidRequest, OutOfRange, NothingHeld."""
        if not name:
            raise InvalidRequest("holder", "is empty; give the name that Follow or Poll was called with")
        _check(name)
        if not entry.execution.request.waits:
            raise NothingHeld(entry.key.exec_id)
        extent = entry.extent()
        if offset > extent.end:
            raise OutOfRange("offset", offset, extent.end)
        if entry.ended:
            return  # from now on nothing is dropped
        holding, now = entry.hold(), _now()
        if release:
            holding.release(name, now)
        else:
            holder = holding.holder(name, offset, extent.start, now)
            holder.left_at = now
        self._moved(entry, holding)
        if not holding.attached:
            self._left(entry)
        self._expire_later(entry, holding)

    def passed(self, entry: Entry, holder: Holder, start: int, end: int) -> None:
        """Note that there is nothing for this holder in a range of the log."""
        if holder.attached == 1:  # else another stream of the same name may have what this one passes over
            holder.pass_over(start, end)
            self._moved(entry, entry.hold())

    def _leave(self, entry: Entry, holding: Holding) -> None:
        if not holding.attached and entry in self._attending:
            self._attending.pop(entry).cancel()
            self._left(entry)
        self._expire_later(entry, holding)

    def _left(self, entry: Entry) -> None:
        """The time that a command may wait without a holder begins now."""
        if not entry.ended and entry not in self._leaving:
            self._leaving.add(entry)
            self._spawn(self._tell_left(entry))

    async def _tell_left(self, entry: Entry) -> None:
        try:
            await self._attend_once(entry)
        finally:
            self._leaving.discard(entry)

    def _expire_later(self, entry: Entry, holding: Holding) -> None:
        """Those that are gone count until then. One timer does for all of them."""
        if entry.ended and holding.expiry is not None:
            holding.expiry.cancel()
        gone = [holder.left_at for holder in holding.holders.values() if not holder.attached]
        if gone and not entry.ended and holding.expiry is None:
            at = min(gone) + GONE_SECONDS + 0.1
            holding.expiry = asyncio.get_running_loop().call_at(at, self._expire, entry, holding)

    def _expire(self, entry: Entry, holding: Holding) -> None:
        holding.expiry = None
        if not entry.ended:
            self._moved(entry, holding)
            self._expire_later(entry, holding)

    def _moved(self, entry: Entry, holding: Holding) -> None:
        """Have the supervisor told of the floor, soon."""
        holding.refresh(_now())
        if entry.ended or holding.floor == holding.told:
            return
        enough = self._telling.get(entry)
        if enough is None:
            self._telling[entry] = asyncio.Event()
            self._spawn(self._tell(entry, holding, self._telling[entry]))
        elif abs(holding.floor - holding.told) >= entry.execution.request.output_bytes // TELL_PARTS:
            enough.set()

    async def _tell(self, entry: Entry, holding: Holding, enough: asyncio.Event) -> None:
        try:
            await entry.decided.wait()
            while not entry.ended and holding.floor != holding.told:
                floor = holding.floor
                with suppress(Unavailable):  # its supervisor is being replaced: asked again
                    await self._engine.hold(entry.name, floor)
                    holding.told = floor
                enough.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(TELL_SECONDS):
                        await enough.wait()
        finally:
            del self._telling[entry]

    def _attend(self, entry: Entry) -> None:
        """Tell the supervisor while a holder is attached, if that matters to it."""
        if not entry.ended and entry not in self._attending:
            self._attending[entry] = self._spawn(self._keep_attending(entry))

    async def _keep_attending(self, entry: Entry) -> None:
        await entry.decided.wait()
        while entry.waiting_timeout is not None and not entry.ended:
            await self._attend_once(entry)
            await asyncio.sleep(until_next(entry.waiting_timeout))

    async def _attend_once(self, entry: Entry) -> None:
        with suppress(Unavailable):  # then its supervisor is being replaced, and counts anew
            await self._engine.attend(entry.name, holder=True)


def _check(name: str) -> None:
    if len(name) > MAX_NAME:
        raise InvalidRequest("holder", f"has {len(name)} characters; at most {MAX_NAME} are taken")


def _now() -> float:
    return asyncio.get_running_loop().time()
