"""One Follow: a snapshot, then the log as it grows, then the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.entry import Entry
from rexec_server.core.errors import Unavailable
from rexec_server.core.execution import State
from rexec_server.core.index import now_ns
from rexec_server.core.log import Chunk, Missing
from rexec_server.core.spool import Channel
from rexec_server.core.text import TextChunk, TextView
from rexec_server.rpc import convert

# The fastest size that was measured; smaller pieces that wait are sent together up to it.
MESSAGE_BYTES = 512 * 1024
LEAST_BYTES = 64 * 1024
# gRPC holds some copies of a message until its reader makes room: of three hundred streams without a reader each held
# 1.6 MB. So the more messages are under way, the smaller the next ones are: these many bytes, together.
UNDER_WAY_BYTES = 16 * 1024 * 1024


class Outgoing:
    """The number of messages of output that are under way, of all streams of a server."""

    def __init__(self) -> None:
        self.messages = 0

    def room(self) -> int:
        """Return how many bytes of output the next message may have."""
        return max(LEAST_BYTES, min(MESSAGE_BYTES, UNDER_WAY_BYTES // (self.messages + 1)))


class Drain:
    """Tells followers that the server stops; they end unfinished, and resume at the next one."""

    def __init__(self, wake_all: Callable[[], None]) -> None:
        self.begun = False
        self._wake_all = wake_all

    def begin(self) -> None:
        self.begun = True
        self._wake_all()


@dataclass(slots=True)
class Follower:
    """Reads one execution's log at its own pace, from the log itself: there is no queue that could fill up."""

    entry: Entry
    offset: int
    channels: tuple[Channel, ...]
    heartbeat: float
    text: bool
    drain: Drain
    turn: Callable[[], Awaitable[None]]  # returns when this caller may use the event loop for a message
    outgoing: Outgoing
    on_skip: Callable[[int, int], None] | None = None  # for a holder: there is nothing of its channels in a range
    _given: int = 0  # offset after the last byte that was sent

    async def messages(self) -> AsyncGenerator[api.FollowResponse, None]:
        view = TextView(self.entry.log, self.offset, self.channels) if self.text else None
        snapshot = self.entry.snapshot()
        yield api.FollowResponse(next_offset=self.offset, snapshot=convert.execution(snapshot))
        told = snapshot.state
        last_sent = asyncio.get_running_loop().time()
        while True:
            if self.drain.begun and not self.entry.ended:
                raise Unavailable("the server is stopping; resume at next_offset")
            await self.turn()
            ended = self.entry.ended  # before reading: what is read after an end is all there is
            sent = False
            messages = self._read(view)
            while messages:
                self.outgoing.messages += 1
                try:
                    yield messages.pop(0)
                finally:
                    self.outgoing.messages -= 1
                sent = True
            if ended and self.offset >= (self.entry.end_offset or 0):
                break
            if not ended and self.entry.execution.state != told and not self.entry.ended:
                told = State.RUNNING
                yield api.FollowResponse(next_offset=self.offset, snapshot=convert.execution(self.entry.snapshot()))
                sent = True
            now = asyncio.get_running_loop().time()
            if sent:
                last_sent = now
            elif now - last_sent >= self.heartbeat:
                yield self._heartbeat()
                last_sent = asyncio.get_running_loop().time()
            elif self.entry.ended == ended:
                await self.entry.changed(self.heartbeat - (now - last_sent))
        if view:
            rest = view.finish(self.offset, self.entry.execution.exit.end_time if self.entry.execution.exit else 0)
            if rest:
                yield self._output(rest)
        yield api.FollowResponse(next_offset=self.offset, end=convert.execution(self.entry.snapshot()))

    def _read(self, view: TextView | None) -> list[api.FollowResponse]:
        """What has come since the last look, at most one message of output, and gaps in their place."""
        reading = self.entry.read(self.offset, self.outgoing.room(), self.channels)
        messages: list[api.FollowResponse] = []
        chunks: list[Chunk] = []

        def flush() -> None:
            if chunks:
                last = chunks[-1]
                self.offset = last.offset + len(last.data)
                messages.append(self._output([view.chunk(c) for c in chunks] if view else chunks))
                chunks.clear()

        for item in reading.items:
            if isinstance(item, Missing):
                flush()
                if view and (rest := view.finish(item.start, now_ns())):  # what a gap tore apart stays apart
                    messages.append(self._output(rest))
                self.offset = item.end
                messages.append(api.FollowResponse(next_offset=item.end, gap=convert.gap(item)))
            else:
                chunks.append(item)
        flush()
        self._given = max(self._given, self.offset if messages else 0)
        self.offset = reading.next_offset
        if messages:
            messages[-1].next_offset = reading.next_offset
        if self.on_skip and self.offset > self._given:
            self.on_skip(self._given, self.offset)
        return messages

    def _output(self, chunks: Iterable[Chunk | TextChunk]) -> api.FollowResponse:
        message = api.FollowResponse(next_offset=self.offset)
        for chunk in chunks:
            convert.put_chunk(chunk, message.output.chunks.add())
        return message

    def _heartbeat(self) -> api.FollowResponse:
        return api.FollowResponse(next_offset=self.offset, heartbeat=api.Heartbeat(time=convert.timestamp(now_ns())))
