"""One client's connection: what it sends is sorted until it has settled; from then on bytes go through as they are."""

from __future__ import annotations

import asyncio
from typing import cast

from rexec_server.ingress.arrival import Arrival, NotHttp2


class End(asyncio.Protocol):
    """One end of a connection: what comes in goes out at the other, no faster than that takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self.other is not None:
            self.other.close()

    def close(self) -> None:
        """Close it; what was written goes out first."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close it at once, also if the peer reads nothing."""
        if self.transport is not None:
            self.transport.abort()


class Client(End):
    """The end that a client has."""

    def __init__(self) -> None:
        super().__init__()
        self._arrival: Arrival | None = Arrival()
        self._early = b""
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.settled: asyncio.Future[None] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        if self._arrival is None:
            super().data_received(data)
            return
        try:
            passed = self._arrival.feed(data)
        except NotHttp2 as error:
            self._fail(error)
            return
        if self.other is not None:
            super().data_received(passed)
            self._look()
        elif self._arrival.begun and not self.begun.done():
            assert self.transport is not None
            self.transport.pause_reading()  # until there is a peer to send to
            self._early = passed
            self.begun.set_result(None)

    def meet(self, server: End) -> None:
        """Meet the peer: from now on there is one to send to."""
        self.other, server.other = server, self
        super().data_received(self._early)
        self._early = b""
        if self.transport is not None:
            self.transport.resume_reading()
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("it hung up"))
        super().connection_lost(error)

    def _look(self) -> None:
        """Look if it is settled: then it is a plain pump, for as long as it lasts."""
        if self._arrival is not None and self._arrival.settled:
            self._arrival = None
            self.settled.set_result(None)

    def _fail(self, error: Exception) -> None:
        for future in (self.begun, self.settled):
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that it is not waited for any more
