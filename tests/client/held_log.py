"""A server whose command waits for its readers: it gives at most `limit` bytes beyond what was acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from rexec.v1 import execution_pb2 as pb

from tests.client.fakes import FakeServer, chunk, end, ended, execution, output, snapshot, wire

PIECE = 64 << 10


class HeldLog:
    """The log of one execution, `x`, with one holder. Each Follow is cut before the offsets in `cuts`."""

    def __init__(self, fake: FakeServer, log: bytes, limit: int, cuts: tuple[int, ...] = ()) -> None:
        self.log = log
        self.floor = 0
        self.released = False
        self.holders: list[str] = []
        self.acknowledged: list[int] = []
        self._limit = limit
        self._cuts = list(cuts)
        self._changed = threading.Condition()
        fake.on("GetServerInfo", lambda request, context: wire.GetServerInfoResponse(features=["overflow_wait"]))
        fake.on("Exec", self._exec)
        fake.on("Get", lambda request, context: wire.GetResponse(execution=self.state()))
        fake.on("Follow", self._follow)
        fake.on("Acknowledge", self._acknowledge)

    def state(self, **fields: Any) -> pb.Execution:
        return execution(self.log, overflow_waits=True, max_output_bytes=self._limit, held_offset=self.floor, **fields)

    def _exec(self, request: wire.ExecRequest, context: grpc.ServicerContext) -> wire.ExecResponse:
        return wire.ExecResponse(execution=self.state(exec_id=request.exec_id))

    def _acknowledge(self, request: wire.AcknowledgeRequest, context: grpc.ServicerContext) -> wire.AcknowledgeResponse:
        self.acknowledged.append(request.offset)
        self._move(request.holder, request.offset, request.release)
        return wire.AcknowledgeResponse(held_offset=self.floor)

    def _follow(self, request: wire.FollowRequest, context: grpc.ServicerContext) -> Iterator[wire.FollowResponse]:
        context.add_callback(self._wake)
        self._move(request.holder, request.offset, False)
        yield snapshot(self.state(), request.offset)
        place = request.offset
        while place < len(self.log):
            if self._cuts and place >= self._cuts[0]:
                del self._cuts[0]
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut by the test")
            if not self._await_room(place, context):
                return
            yield output(chunk(place, self.log[place : place + PIECE]))
            place = min(place + PIECE, len(self.log))
        final = ended(self.log)
        final.overflow_waits = True
        yield end(final)

    def _await_room(self, place: int, context: grpc.ServicerContext) -> bool:
        with self._changed:
            while context.is_active() and place + PIECE > self.floor + self._limit and not self.released:
                self._changed.wait()
        return context.is_active()

    def _move(self, holder: str, offset: int, release: bool) -> None:
        with self._changed:
            self.holders.append(holder)
            self.floor = max(self.floor, offset)
            self.released = self.released or release
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
