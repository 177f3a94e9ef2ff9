"""Turns on the event loop: work that takes about a millisecond is done once in each pass of the loop."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

# After a turn that took longer its caller rests for as long, in seconds: others' calls need some passes of the loop
# each, and would wait for a long turn in every one of them.
LONG_SECONDS = 0.004
LONGEST_REST = 0.025
# Rests that are over are looked through when so many callers have had one.
_MANY = 1000


class Turns:
    """One turn in each pass of the loop, and callers one after the other; one caller's own go in their order.

    Sixty streams that have something to send would all send in one pass, and a call that comes meanwhile needs several
    passes: it waited half a second. So it waits for one of them in each pass.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time
    ) -> None:
        """Make turns. used: tells the processor time of this thread, in seconds, as `clock` tells the time."""
        self._clock, self._used = clock, used
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._rests: dict[str, float] = {}  # until when, of callers whose last turn was long
        self._taken = False  # a caller's turn is not over
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, caller: str) -> None:
        """Returns when it is the caller's turn, which is over when the caller awaits something the next time."""
        loop = asyncio.get_running_loop()
        if self._taken or self._waiting or self._rests_still(caller, self._clock()):
            await self._wait(caller, loop)
        self._taken = True
        loop.call_soon(self._over, loop, caller, self._used())

    async def _wait(self, caller: str, loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        self._waiting.setdefault(caller, deque()).append(future)
        if not self._taken:
            self._next(loop)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it had its turn, and will not use it
                self._taken = False
                self._next(loop)
            raise

    def _over(self, loop: asyncio.AbstractEventLoop, caller: str, began: float) -> None:
        took = self._used() - began
        if took > LONG_SECONDS:
            self._rests[caller] = self._clock() + min(took, LONGEST_REST)
            if len(self._rests) > _MANY:
                self._rests = {name: until for name, until in self._rests.items() if until > self._clock()}
        self._taken = False
        self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the turn to the first caller who waits and does not rest."""
        now = self._clock()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while caller := next((name for name in self._waiting if not self._rests_still(name, now)), None):
            queue = self._waiting.pop(caller)
            future = queue.popleft()
            if queue:
                self._waiting[caller] = queue  # behind the others
            if not future.done():
                self._taken = True
                future.set_result(None)
                return
        if self._waiting:
            soonest = min(self._rests[name] for name in self._waiting)
            self._timer = loop.call_later(soonest - now, self._next, loop)

    def _rests_still(self, caller: str, now: float) -> bool:
        until = self._rests.get(caller)
        if until is not None and until <= now:
            del self._rests[caller]
            return False
        return until is not None
