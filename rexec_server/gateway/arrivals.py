"""Requests that are coming in: all of them are read in one thread, and a worker gets one when it is there.

A handshake or a request that does not go on so holds no worker, however many of them a client sends.
"""

from __future__ import annotations

import os
import re
import selectors
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rexec_server.gateway.slow import peer_of
from rexec_server.peers import Places

# In all, and of one address: connections whose request is not there yet. Beyond, the oldest is closed.
MOST = 2048
MOST_OF_PEER = MOST // 4
# The bytes read before a worker is asked for: a head, and a body of such a size. Larger ones a worker reads.
LONGEST_HEAD = 32 * 1024
BODY_AHEAD = 64 * 1024
_PIECE = 16 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n")
# The rest of such a request is the worker's, for it must answer in between, or decode.
_BY_WORKER = (b"\nexpect:", b"\ntransfer-encoding:")


class Arrival:
    """The beginning of a request, as far as it is there."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self._needed: int | None = None  # known once the head is there
        self._seen = 0
        self.whole = False
        """All of it is there, the body included."""

    def is_enough(self) -> bool:
        """Tell if there is enough for a worker, who waits for nothing then, or for a body that is large."""
        if self._needed is None and not self._find_head():
            return len(self.data) > LONGEST_HEAD  # the worker refuses that
        assert self._needed is not None
        self.whole = 0 <= self._needed <= len(self.data)
        return self.whole or self._needed < 0

    def _find_head(self) -> bool:
        end = _HEAD_END.search(self.data, max(0, self._seen - 3))
        self._seen = len(self.data)
        if end is None:
            return False
        head = bytes(self.data[: end.end()]).lower()
        length = _LENGTH.search(head)
        body = int(length[1]) if length else 0
        by_worker = body > BODY_AHEAD or any(name in head for name in _BY_WORKER)
        self._needed = -1 if by_worker else end.end() + body
        return True


class Arrivals:
    """The thread, and the connections that it reads."""

    def __init__(
        self, ready: Callable[[Any, bool], None], seconds: float, most: int = MOST, most_of_peer: int = MOST_OF_PEER
    ) -> None:
        """Take `ready`, for a connection with a request, and if all of it is there; `seconds`: until it must be."""
        self._ready, self._seconds = ready, seconds
        self._places: Places[Any] = Places(most, most_of_peer)
        self._new: deque[Any] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="rexec-arrivals")

    def start(self) -> None:
        self._thread.start()

    def take(self, conn: Any) -> None:
        """Take a connection on which something comes in. Any thread may give it."""
        conn.rfile.timed.begin()
        self._new.append(conn)
        self._interrupt()

    def stop(self) -> None:
        """Closes what has not arrived."""
        self._stopping = True
        self._interrupt()
        if self._thread.is_alive():
            self._thread.join()
        for conn in (*self._places, *self._new):
            conn.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def _interrupt(self) -> None:
        with suppress(BlockingIOError):  # it is full, and so is read soon
            os.write(self._wake, b"\0")

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    with suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                else:
                    self._advance(key.data)
            while self._new and not self._stopping:
                self._admit(self._new.popleft())
            self._expire()

    def _patience(self) -> float | None:
        """Return the time until the next is late: they came in this order, and have the same time."""
        first = next(iter(self._places), None)
        return None if first is None else max(0.0, first.rfile.timed.until - time.monotonic())

    def _expire(self) -> None:
        while (conn := next(iter(self._places), None)) is not None and conn.rfile.timed.is_over():
            if conn.arrival.data and not _is_shaking(conn):
                self._hand_over(conn)  # a worker says that it took too long
            else:
                self._drop(conn)

    def _admit(self, conn: Any) -> None:
        conn.arrival = Arrival(conn.rfile.unread())
        oldest = self._places.add(conn, peer_of(conn))
        try:
            conn.socket.setblocking(False)
            self._selector.register(conn.socket, selectors.EVENT_READ, conn)
        except (OSError, ValueError):  # closed meanwhile
            self._places.remove(conn)
            conn.close()
        else:
            self._advance(conn)
        if oldest is not None:
            self._drop(oldest)

    def _advance(self, conn: Any) -> None:
        """Reads what there is."""
        try:
            if _is_shaking(conn):
                conn.socket.do_handshake()
            while not conn.arrival.is_enough():
                data = conn.socket.recv(_PIECE)
                if not data:
                    break  # the worker finds that out too, without waiting
                conn.arrival.data += data
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(conn.socket, selectors.EVENT_READ, conn)
        except ssl.SSLWantWriteError:
            self._selector.modify(conn.socket, selectors.EVENT_WRITE, conn)
        except (OSError, ValueError):
            self._drop(conn)
        else:
            self._hand_over(conn)

    def _hand_over(self, conn: Any) -> None:
        self._leave(conn)
        conn.socket.settimeout(conn.server.timeout)
        arrival, conn.arrival = conn.arrival, None
        conn.rfile.timed.ahead = bytes(arrival.data)
        self._ready(conn, arrival.whole)

    def _drop(self, conn: Any) -> None:
        self._leave(conn)
        conn.close()

    def _leave(self, conn: Any) -> None:
        self._places.remove(conn)
        with suppress(KeyError, ValueError):
            self._selector.unregister(conn.socket)


def _is_shaking(conn: Any) -> bool:
    """Return True for TLS that has not come to an understanding."""
    return isinstance(conn.socket, ssl.SSLSocket) and conn.socket.version() is None
