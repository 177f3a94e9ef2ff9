"""Decisions that look at files, in threads: a file system that does not answer keeps its own caller waiting only."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from rexec_server.core.errors import Unavailable
from rexec_server.core.fair_queue import FairQueue

# A look takes a fraction of a millisecond. More threads would only take turns.
AT_ONCE = 4
# After this time the next one begins, and after that the caller is told.
TURN_SECONDS = 0.25
LOOK_SECONDS = 5.0
# Threads that wait for a file system cannot be ended: a caller may have so many.
MOST_OF_ONE = 16

T = TypeVar("T")


class Lookups:
    """Callers take turns. The threads end with the process: what hangs does not keep it from stopping."""

    def __init__(self, seconds: float = LOOK_SECONDS, most_of_one: int = MOST_OF_ONE) -> None:
        self._seconds, self._most_of_one = seconds, most_of_one
        self._queue = FairQueue(AT_ONCE)
        self._under_way: Counter[str] = Counter()

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """Return what the work returns, or raise what it raises. Unavailable when that takes too long."""
        async with self._queue.turn(caller, TURN_SECONDS):
            if self._under_way[caller] >= self._most_of_one:
                raise Unavailable(f"{self._most_of_one} looks at files, which do not answer, are under way already")
            found = self._begin(caller, work)
            try:
                async with asyncio.timeout(self._seconds):
                    return await asyncio.shield(found)
            except TimeoutError:
                text = f"a file system of a path or program does not answer within {self._seconds:g} s"
                raise Unavailable(text) from None

    def _begin(self, caller: str, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[T] = loop.create_future()
        self._under_way[caller] += 1

        def end(tell: Callable[[], None]) -> None:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]
            tell()

        def look() -> None:
            try:
                tell = partial(found.set_result, work())
            except Exception as error:
                tell = partial(_fail, found, error)
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(end, tell)

        threading.Thread(target=look, name="rexec-lookup", daemon=True).start()
        return found


def _fail(found: asyncio.Future[T], error: BaseException) -> None:
    found.set_exception(error)
    found.exception()  # it may be that nothing waits for it any more
