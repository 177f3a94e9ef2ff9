"""Header floods by one who has no credential."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.http2_flood import Flood

CONNECTIONS = 10


@asynccontextmanager
async def flood(target: str, ca: str) -> AsyncIterator[None]:
    """Flood with 1,500 blocks on ten connections, one after the other. ca: of the server's certificate, a file."""
    host, _, port = target.rpartition(":")
    stop = threading.Event()

    def floods() -> None:
        while not stop.is_set():
            Flood((host, int(port)), ca, connections=CONNECTIONS, seconds=5).run(stop)

    flooding = asyncio.create_task(asyncio.to_thread(floods))
    try:
        yield
    finally:
        stop.set()
        await flooding
