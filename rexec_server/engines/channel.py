"""Connections to the runner and to supervisors."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from rexec_server.core.errors import Unavailable
from rexec_server.runner.wire import HEADER, MAX_FRAME, PAYLOAD, Message, encode, peer_uid


class Request(NamedTuple):
    """A request that was sent. The answer is Unavailable when the connection ends before it."""

    number: int
    answer: asyncio.Future[Message]


class Channel:
    """A connection to a runner or a supervisor: requests are numbered, answers come in any order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self.closed = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @property
    def open(self) -> bool:
        return not self.closed.is_set()

    @classmethod
    async def connect(cls, path: str) -> Channel:
        """Raise OSError without a listener, or when it is neither root's nor ours: a launch has secrets in it."""
        reader, writer = await asyncio.open_unix_connection(path)
        if peer_uid(writer.get_extra_info("socket")) not in (0, os.geteuid()):
            writer.close()
            raise PermissionError(errno.EPERM, "another user listens there")
        return cls(reader, writer)

    async def ask(self, request: Message) -> Message:
        """Ask. Unavailable when the connection ends before the answer."""
        return await self.send(request).answer

    def send(self, request: Message, payload: bytes | None = None) -> Request:
        """Sends a request, with bytes behind it to those who take them, and does not wait for its answer."""
        if not self.open:
            raise Unavailable("the connection is closed")
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        size = {} if payload is None else {PAYLOAD: len(payload)}
        self._writer.write(encode(request | {"number": number} | size))
        if payload:
            self._writer.write(payload)
        return Request(number, answer)

    def tell(self, message: Message) -> None:
        """Sends what has no answer."""
        if self.open:
            self._writer.write(encode(message))

    async def close(self) -> None:
        self._writer.close()
        self._task.cancel()
        await asyncio.wait([self._task])  # its cancellation is not ours, and ours must not be taken for its
        with suppress(OSError):
            await self._writer.wait_closed()

    def drop(self) -> None:
        """Ends it, and waits for nothing."""
        self._writer.close()
        self._task.cancel()

    async def _read(self) -> None:
        try:
            while True:
                (length,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if length > MAX_FRAME:
                    raise OSError(f"a frame of {length} bytes")
                answer: dict[str, Any] = json.loads(await self._reader.readexactly(length))
                future = self._waiting.get(answer["number"])
                if future and not future.done():
                    future.set_result(answer)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._fail(str(error))
        finally:
            self.closed.set()
            self._fail("closed")
            self._writer.close()

    def _fail(self, why: str) -> None:
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(Unavailable(f"the connection ended: {why}"))


async def connect(directory: str, name: str) -> Channel:
    """Connects to a socket in a directory. OSError."""
    async with _short_name(directory) as short:
        return await Channel.connect(f"{short}/{name}")


@asynccontextmanager
async def _short_name(path: str) -> AsyncIterator[str]:
    """Give a directory a short name: a socket's path is limited to 107 bytes (unix(7))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
