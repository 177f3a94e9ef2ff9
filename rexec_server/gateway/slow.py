"""What a slow peer may hold: one deadline for each request to arrive, and few of the workers until it has."""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cheroot.makefile import StreamReader

# For what is said to a peer that has not even finished its TLS handshake.
_LAST_WORD_SECONDS = 0.1


class TimedReader(StreamReader):
    """Reads a connection; TimeoutError when a request, from `begin()` on, has not arrived in time."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.timed = _TimedSocket(sock, seconds)
        super(StreamReader, self).__init__(self.timed, io.DEFAULT_BUFFER_SIZE)  # past the reader of a plain socket
        self.bytes_read = 0


class _TimedSocket(socket.SocketIO):
    """One deadline over all reads: a timeout for each would let a byte now and then hold a worker for ever."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        super().__init__(sock, "r")
        self._socket, self._seconds = sock, seconds
        self._until = time.monotonic() + seconds

    def begin(self) -> None:
        """The first byte of a request is there."""
        self._until = time.monotonic() + self._seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def readinto(self, buffer: Any) -> int | None:
        usual = self._socket.gettimeout()
        try:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")  # the words by which cheroot knows it
            self._socket.settimeout(left)
            return super().readinto(buffer)
        finally:
            # Without a handshake, an answer would begin by waiting for it once more.
            unknown = isinstance(self._socket, ssl.SSLSocket) and self._socket.version() is None
            self._socket.settimeout(_LAST_WORD_SECONDS if unknown else usual)


class Peers:
    """Lets each peer hold a few workers with requests that have not arrived entirely; its others wait."""

    def __init__(self, most: int, waiting: int, run: Callable[[Any], bool]) -> None:
        """run: gives a connection to a worker; false when it could not. waiting: how many may wait, of all peers."""
        self._most, self._waiting, self._run = most, waiting, run
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._queues: dict[str, deque[Any]] = {}
        self._queued = 0

    def arrive(self, conn: Any) -> bool:
        """A request begins. False when there is no room for it."""
        peer = _peer(conn)
        with self._lock:
            if self._held.get(peer, 0) >= self._most:
                if self._queued >= self._waiting:
                    return False
                self._queues.setdefault(peer, deque()).append(conn)
                self._queued += 1
                return True
            self._held[peer] = self._held.get(peer, 0) + 1
        conn.counted = True
        if self._run(conn):
            return True
        self.arrived(conn)
        return False

    def arrived(self, conn: Any) -> None:
        """A request is complete, or given up: the peer's next has its place."""
        if not conn.counted:
            return
        conn.counted = False
        peer = _peer(conn)
        while (following := self._next(peer)) is not None:
            following.counted = True
            if self._run(following):
                return
            following.counted = False
            following.turn_away()

    def _next(self, peer: str) -> Any:
        """Who takes over the place; None: nobody, and it is given back."""
        with self._lock:
            queue = self._queues.get(peer)
            if queue:
                self._queued -= 1
                following = queue.popleft()
                if not queue:
                    del self._queues[peer]
                return following
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]
            return None


def _peer(conn: Any) -> str:
    """The address; of IPv6 the network, of which whoever has one address has them all."""
    address = str(conn.remote_addr or "")
    try:
        v6 = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(v6.ipv4_mapped or v6.packed[:8].hex())
