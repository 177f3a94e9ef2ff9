"""Whether this server can serve: its index and its runner answer, and it is not about to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rexec_server.core.engine import Engine
from rexec_server.core.errors import Unavailable
from rexec_server.core.index import Index

_log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
# Who takes longer than this to say anything does not answer.
PATIENCE_SECONDS = 2.0
OK = "ok"


class Readiness:
    """Looks when asked; or each second, and tells when it has changed."""

    def __init__(self, index: Index, engine: Engine) -> None:
        self._index = index
        self._engine = engine
        self.draining = False

    async def check(self) -> dict[str, str]:
        """How each part is: OK, or what is wrong with it."""
        index, runner = await asyncio.gather(_answer(self._index.ping), _answer(self._engine.answers))
        return {"index": index, "runner": runner, "server": "is stopping" if self.draining else OK}

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Tells whether it is ready, whenever that has changed; at first it is."""
        told = True
        while True:
            parts = await self.check()
            ready = is_ready(parts)
            if ready != told:
                worth = logging.INFO if ready or self.draining else logging.WARNING
                _log.log(worth, "ready again" if ready else "not ready", extra=parts)
                await tell(ready)
                told = ready
            await asyncio.sleep(CHECK_SECONDS)


def is_ready(parts: dict[str, str]) -> bool:
    return set(parts.values()) == {OK}


async def _answer(ask: Callable[[], Awaitable[bool]]) -> str:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return OK if await ask() else "does not answer"
    except TimeoutError:
        return "does not answer"
    except Unavailable as error:
        return error.message
