"""Who follows which execution: how many may, and that a supervisor hears of it where that matters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rexec_server.core.engine import Engine
from rexec_server.core.entry import Entry
from rexec_server.core.errors import Exhausted, Unavailable
from rexec_server.core.registry import Registry

# Each time costs a connection. A time shorter than this one is over although somebody follows.
LEAST_SECONDS = 0.1

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Attendance:
    """Counts followers. What one costs while nothing happens is counted in bytes: there may be ten thousand.

    most: of all callers together. most_of_one: of one caller; None: as many as all.
    spawn: begins a task that ends with the server.
    """

    def __init__(self, registry: Registry, engine: Engine, most: int, most_of_one: int | None, spawn: Spawn) -> None:
        self._registry = registry
        self._engine = engine
        self._most = most
        self._most_of_one = most_of_one
        self._spawn = spawn
        self._followers: Counter[str] = Counter()  # by who follows
        self._tasks: dict[Entry, asyncio.Task[None]] = {}  # one for each entry that is followed

    @contextmanager
    def of(self, entry: Entry, caller: str) -> Iterator[None]:
        """The caller follows for the time of this block, and is woken at each batch of output. Exhausted."""
        self._check(caller)
        self._enter(entry, caller)
        try:
            yield
        finally:
            self._leave(entry, caller)

    def _check(self, caller: str) -> None:
        total, own = self._followers.total(), self._followers[caller]
        if total >= self._most:
            raise Exhausted("followers", f"{total} followers are attached, and no more may be", 5.0)
        if self._most_of_one is not None and own >= self._most_of_one:
            raise Exhausted(f"caller {caller}", f"follows {own} executions, and may no more", 5.0)

    def _enter(self, entry: Entry, caller: str) -> None:
        self._followers[caller] += 1
        entry.followers += 1
        if entry.followers == 1:
            self._tasks[entry] = self._spawn(self._attend(entry))
        self._registry.watch_output(entry)

    def _leave(self, entry: Entry, caller: str) -> None:
        self._registry.unwatch_output(entry)
        entry.followers -= 1
        self._followers[caller] -= 1
        if not self._followers[caller]:
            del self._followers[caller]
        if not entry.followers:
            self._tasks.pop(entry).cancel()
            if entry.unattended_timeout is not None and not entry.ended:
                # The time until it is taken for abandoned begins when the last follower leaves.
                self._spawn(self._attend_once(entry))

    async def _attend(self, entry: Entry) -> None:
        """As long as anybody follows; whether that matters is known when the command has been started."""
        await entry.decided.wait()
        while entry.unattended_timeout is not None and not entry.ended:
            await self._attend_once(entry)
            await asyncio.sleep(until_next(entry.unattended_timeout))

    async def _attend_once(self, entry: Entry) -> None:
        with suppress(Unavailable):  # then its supervisor is being replaced, and counts anew
            await self._engine.attend(entry.name)


def until_next(timeout: float) -> float:
    """Return after how many seconds to say again that somebody is there, so that a timeout is not over."""
    return max(timeout / 4, LEAST_SECONDS)
