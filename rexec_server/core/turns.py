"""Turns on the event loop: work that takes about a millisecond is done once in each pass of the loop."""

from __future__ import annotations

import asyncio

from rexec_server.core.fair_queue import FairQueue


class Turns:
    """One turn in each pass of the loop, and callers one after the other.

    Sixty streams that have something to send would all send in one pass, and a call that comes meanwhile needs several
    passes: it waited half a second. So it waits for one of them in each pass.
    """

    def __init__(self) -> None:
        self._queue = FairQueue(1)

    async def take(self, caller: str) -> None:
        """Returns when it is the caller's turn, which is over when the caller awaits something the next time."""
        await self._queue.enter(caller)
        asyncio.get_running_loop().call_soon(self._queue.leave)
