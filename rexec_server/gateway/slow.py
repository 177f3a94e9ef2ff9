"""The share of a slow peer: one deadline for each request to arrive, and few of the workers until a large one has."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cheroot.makefile import StreamReader

from rexec_server.peers import network

# For what is said to a peer that has not even finished its TLS handshake.
_LAST_WORD_SECONDS = 0.1


class TimedReader(StreamReader):
    """Reads a connection; TimeoutError when a request, from `begin()` on, has not arrived in time."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.timed = _TimedSocket(sock, seconds)
        super(StreamReader, self).__init__(self.timed, io.DEFAULT_BUFFER_SIZE)  # past the reader of a plain socket
        self.bytes_read = 0

    def has_data(self) -> bool:
        """Return True when data of a next request is there, which the client did not wait with."""
        buffered: bool = super().has_data()  # type: ignore[no-untyped-call]
        return bool(buffered or self.timed.ahead or self.timed.pending())

    def unread(self) -> bytes:
        """Take out what was read from the connection and not used up."""
        buffered: Any = self  # cheroot makes it of Python's own io in Python, and looks into it itself
        left = bytes(buffered._read_buf[buffered._read_pos :]) + self.timed.ahead
        buffered._reset_read_buf()
        self.timed.ahead = b""
        return left


class _TimedSocket(socket.SocketIO):
    """One deadline over all reads: a timeout for each would let a byte now and then hold a worker for ever."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        super().__init__(sock, "r")
        self._socket, self._seconds = sock, seconds
        self.until = time.monotonic() + seconds
        self.ahead = b""
        """The bytes that were read from the connection already."""

    def begin(self) -> None:
        """The first byte of a request is there."""
        self.until = time.monotonic() + self._seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    def pending(self) -> int:
        """Return the number of bytes that TLS has decrypted, and that are not read yet."""
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) and self._socket.version() else 0

    def readinto(self, buffer: Any) -> int | None:
        if self.ahead:
            piece = self.ahead[: len(buffer)]
            buffer[: len(piece)] = piece
            self.ahead = self.ahead[len(piece) :]
            return len(piece)
        usual = self._socket.gettimeout()
        try:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")  # the words by which cheroot knows it
            self._socket.settimeout(left)
            return super().readinto(buffer)
        finally:
            # Without a handshake, an answer would begin by waiting for it once more.
            unknown = isinstance(self._socket, ssl.SSLSocket) and self._socket.version() is None
            self._socket.settimeout(_LAST_WORD_SECONDS if unknown else usual)


class Peers:
    """Lets each peer hold a few workers with requests that have not arrived entirely, and all peers some; others wait.

    That are large ones: the others arrive before a worker is asked for.
    """

    def __init__(self, most: int, together: int, waiting: int, run: Callable[[Any], bool]) -> None:
        """run: gives a connection to a worker; false when it could not. waiting: how many may wait, of all peers."""
        self._most, self._together, self._waiting, self._run = most, together, waiting, run
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._all_held = 0
        self._queues: dict[str, deque[Any]] = {}  # whose turn is first
        self._queued = 0

    def arrive(self, conn: Any) -> bool:
        """A request begins. False when there is no room for it."""
        peer = peer_of(conn)
        with self._lock:
            if self._all_held >= self._together or self._held.get(peer, 0) >= self._most:
                if self._queued >= self._waiting:
                    return False
                self._queues.setdefault(peer, deque()).append(conn)
                self._queued += 1
                return True
            self._hold(peer)
        conn.counted = True
        if self._run(conn):
            return True
        self.arrived(conn)
        return False

    def arrived(self, conn: Any) -> None:
        """Note that a request is complete, or given up: another has its place, of a peer holding less than it may."""
        if not conn.counted:
            return
        conn.counted = False
        with self._lock:
            self._release(peer_of(conn))
        while (following := self._next()) is not None:
            following.counted = True
            if self._run(following):
                return
            following.counted = False
            with self._lock:
                self._release(peer_of(following))
            following.turn_away()

    def _next(self) -> Any:
        """Return the one that takes over a place; None: none may. Peers take turns."""
        with self._lock:
            if self._all_held >= self._together:
                return None
            peer = next((peer for peer in self._queues if self._held.get(peer, 0) < self._most), None)
            if peer is None:
                return None
            queue = self._queues.pop(peer)
            following = queue.popleft()
            if queue:
                self._queues[peer] = queue  # it is last now
            self._queued -= 1
            self._hold(peer)
            return following

    def _hold(self, peer: str) -> None:
        self._held[peer] = self._held.get(peer, 0) + 1
        self._all_held += 1

    def _release(self, peer: str) -> None:
        self._all_held -= 1
        self._held[peer] -= 1
        if not self._held[peer]:
            del self._held[peer]


def peer_of(conn: Any) -> str:
    """Return the peer of a connection."""
    return network(str(conn.remote_addr or ""))
