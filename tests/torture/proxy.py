"""A proxy between clients and the server, that cuts connections in the middle of frames, and lets them hang."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from contextlib import suppress


class Proxy:
    """Listens on a port of its own and passes on to a unix socket, or HOST:PORT; a thread with an event loop."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._connections: dict[asyncio.Task[None], int | None] = {}  # each with the bytes that it still may pass on
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy")
        self._thread.start()
        self._ready.wait()

    def cut(self, chance: random.Random) -> None:
        """Each connection that is open now ends after some more bytes to the client: in the middle of a frame."""
        seed = chance.getrandbits(32)
        self._loop.call_soon_threadsafe(self._arm, random.Random(seed))

    def stall(self, on: bool) -> None:
        """Passes nothing on, and closes nothing."""
        self._loop.call_soon_threadsafe(self._flows.clear if on else self._flows.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._flows = asyncio.Event(), asyncio.Event()
        self._flows.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _arm(self, chance: random.Random) -> None:
        for task in self._connections:
            self._connections[task] = chance.randrange(1, 4096)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        try:
            up_reader, up_writer = await self._dial()
            try:
                up = asyncio.create_task(self._pump(reader, up_writer))
                down = asyncio.create_task(self._pump(up_reader, writer, limit=task))
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in (up, down):
                    pump.cancel()
                up_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # no server just then; or it is over
        finally:
            del self._connections[task]
            _reset(writer)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self._target:
            return await asyncio.open_unix_connection(self._target)
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Task[None] | None = None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                left = self._connections.get(limit) if limit else None
                writer.write(data if left is None else data[:left])
                await writer.drain()
                if left is not None and limit:
                    if left <= len(data):
                        return
                    self._connections[limit] = left - len(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes it as a machine does that knows nothing of the connection any more."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
