"""A queue in which callers take turns: one caller's thousand requests delay another's by one, not by a thousand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairQueue:
    """Lets `width` in at once. Of those who wait, callers take turns; one caller's own go in their order."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, caller: str) -> None:
        """Returns when it is the caller's turn. Who has entered calls `leave`, once."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it had its turn, and will not use it
                self.leave()
            raise

    def leave(self) -> None:
        """Let the next one enter."""
        while self._waiting:
            caller, queue = self._waiting.popitem(last=False)
            future = queue.popleft()
            if queue:
                self._waiting[caller] = queue  # behind the others
            if not future.done():
                future.set_result(None)
                return
        self._free += 1

    @asynccontextmanager
    async def turn(self, caller: str, at_most: float | None = None) -> AsyncIterator[None]:
        """Make the block the caller's turn. After `at_most` seconds the next one enters, even if the block goes on."""
        await self.enter(caller)
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self.leave()

        timer = None if at_most is None else asyncio.get_running_loop().call_later(at_most, leave)
        try:
            yield
        finally:
            if timer:
                timer.cancel()
            leave()
