"""Connections on which a server writes standard input: one per execution, kept while it is used.

Writes go in the order in which they were asked for, several on their way at once. So much of them is with the
supervisor, and the rest waits here, up to a limit: a command that does not read costs that much memory at most.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from rexec_server.core.engine import StdinPiece, StdinProgress
from rexec_server.core.errors import Exhausted, Unavailable
from rexec_server.core.spool import CONTROL
from rexec_server.engines.channel import Channel, Request, connect
from rexec_server.runner.wire import PAYLOAD, Message

# Bytes of one execution that may be with its supervisor, and here.
WITH_SUPERVISOR = 4 * 1024 * 1024
WAITING_HERE = 64 * 1024 * 1024
# The time for which an unused connection is kept, and the number of these.
IDLE_SECONDS = 10.0
IDLE_LINKS = 256


class StdinLinks:
    """The links of all executions. directory: of an execution, by its name in the spool."""

    def __init__(self, directory: Callable[[str], str]) -> None:
        self._directory = directory
        self._links: dict[str, _Link] = {}

    async def write(self, name: str, piece: StdinPiece) -> StdinProgress:
        """Write. OSError and Unavailable: it is not known if it was written; another attempt finds the successor."""
        link = self._links.get(name)
        if link is None or link.broken:
            link = self._links[name] = _Link(self._directory(name))
        link.users += 1
        try:
            return await link.write(piece)
        finally:
            link.users -= 1
            self._let_rest(name, link)

    async def close(self) -> None:
        for link in list(self._links.values()):
            await link.close()

    def _let_rest(self, name: str, link: _Link) -> None:
        if link.broken and not link.users:
            self._drop(name, link)
        elif not link.users:
            link.used += 1
            seconds = IDLE_SECONDS if len(self._links) <= IDLE_LINKS else 0
            asyncio.get_running_loop().call_later(seconds, self._drop_idle, name, link, link.used)

    def _drop_idle(self, name: str, link: _Link, used: int) -> None:
        if not link.users and link.used == used:
            self._drop(name, link)

    def _drop(self, name: str, link: _Link) -> None:
        link.drop()
        if self._links.get(name) is link:
            del self._links[name]


class _Link:
    """One connection to one supervisor, made at its first use."""

    def __init__(self, directory: str) -> None:
        self.users = 0
        self.used = 0  # how often it came to rest
        self.broken = False
        self._directory = directory
        self._turn = asyncio.Lock()  # fair: who comes first writes first
        self._channel: Channel | None = None
        self._features: frozenset[str] = frozenset()
        self._waiting = 0  # bytes that are here
        self._away = 0  # bytes that are with the supervisor
        self._room = asyncio.Event()

    async def write(self, piece: StdinPiece) -> StdinProgress:
        if self._waiting and self._waiting + len(piece.data) > WAITING_HERE:
            raise Exhausted(
                "stdin", f"{self._waiting} bytes wait for the command to read; at most {WAITING_HERE}: try again later"
            )
        self._waiting += len(piece.data)
        try:
            request = await self._send(piece)
        except (OSError, Unavailable):
            self.broken = True
            raise
        finally:
            self._waiting -= len(piece.data)
        if request is None:
            return StdinProgress(0, True, "nameless")
        return await self._settle(request)

    async def _send(self, piece: StdinPiece) -> Request | None:
        """Sends a write when it is its turn; a question need not wait. None when the supervisor knows no writers."""
        if self._channel and self._channel.open and not piece.data and not piece.eof:
            return self._send_now(piece)
        async with self._turn:
            if self._channel is None:
                channel = await connect(self._directory, CONTROL)
                try:
                    info = await channel.ask({"op": "info"})
                except BaseException:
                    channel.drop()
                    raise
                self._channel, self._features = channel, frozenset(info.get("features", ()))
            while self._away and self._away + len(piece.data) > WITH_SUPERVISOR and self._channel.open:
                self._room.clear()
                await self._room.wait()
            return self._send_now(piece)

    def _send_now(self, piece: StdinPiece) -> Request | None:
        assert self._channel is not None
        message: Message = {"op": "stdin", "offset": piece.offset, "eof": piece.eof}
        payload: bytes | None = piece.data
        if piece.writer and "writer" not in self._features:
            return None  # it would leave the name aside, and count in the wrong counter
        if piece.writer:
            message["writer"] = piece.writer.hex()
        if PAYLOAD not in self._features:
            message["data"], payload = base64.b64encode(piece.data).decode(), None
        request = self._channel.send(message, payload)
        self._away += len(piece.data)
        request.answer.add_done_callback(lambda answer: self._arrived(answer, len(piece.data)))
        return request

    def _arrived(self, answer: asyncio.Future[Message], size: int) -> None:
        self._away -= size
        self._room.set()
        if not answer.cancelled():
            answer.exception()  # it is known here that it failed, also if it is not waited for any more

    async def _settle(self, request: Request) -> StdinProgress:
        assert self._channel is not None
        try:
            answer = await asyncio.shield(request.answer)
        except Unavailable:
            self.broken = True
            raise
        except asyncio.CancelledError:
            self._abandon(request)
            raise
        return StdinProgress(answer["bytes_written"], answer["open"], answer["error"], answer.get("skipped", 0))

    def _abandon(self, request: Request) -> None:
        """Abandon a write that is not waited for: what of it is not in yet is to stay out."""
        assert self._channel is not None
        if PAYLOAD in self._features:
            self._channel.tell({"op": "stdin_abandon", "write": request.number})
        else:
            self.drop()  # which is how a supervisor of the first version is told

    def drop(self) -> None:
        self.broken = True
        if self._channel:
            self._channel.drop()

    async def close(self) -> None:
        self.broken = True
        if self._channel:
            await self._channel.close()
