"""Who is connected to the runner: the servers that may ask it for something."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.wire import Connection, Message, peer_uid


class Peers:
    """Accepts whom the runner trusts; `answer(connection, request)` is called for each request."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        trusted_uids: frozenset[int],
        answer: Callable[[Connection, Message], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._trusted_uids = trusted_uids
        self._answer = answer
        self._connections: set[Connection] = set()
        self._paused = False

    def __bool__(self) -> bool:
        return bool(self._connections)

    def listen(self) -> None:
        self._loop.watch(self._listener.fileno(), READ, self._ready)

    def pause(self) -> None:
        """Takes no further request: they wait in their sockets."""
        self._paused = True
        self._loop.unwatch(self._listener.fileno())
        for connection in self._connections:
            connection.pause(True)

    def resume(self) -> None:
        self._paused = False
        self.listen()
        for connection in self._connections:
            connection.pause(False)

    def replace_listener(self, listener: socket.socket) -> None:
        """Goes on with another listener, as the name of the one before is gone; who came by that name is taken."""
        if self._paused:
            return listener.close()
        while self._accept():
            pass
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self._listener = listener
        self.listen()

    @property
    def quiet(self) -> bool:
        """Whether no request is half received, and no answer half sent."""
        return all(connection.quiet for connection in self._connections)

    @property
    def descriptors(self) -> tuple[int, list[int]]:
        """The listener's, and those of the connections."""
        return self._listener.fileno(), [connection.fileno() for connection in self._connections]

    def take_up(self, descriptors: Iterable[int]) -> dict[int, Connection]:
        """Goes on with connections that a predecessor in this process had."""
        return {fd: self._connect(socket.socket(fileno=fd)) for fd in descriptors}

    def _ready(self, _: int) -> None:
        self._accept()

    def _accept(self) -> bool:
        """Takes a caller who waits. Returns False when there is none."""
        try:
            sock, _ = self._listener.accept()
        except OSError:  # the caller has gone, or there are too many descriptors
            return False
        if peer_uid(sock) in self._trusted_uids:
            self._connect(sock)
        else:
            sock.close()
        return True

    def _connect(self, sock: socket.socket) -> Connection:
        connection = Connection(self._loop, sock, self._answer, self._connections.discard)
        self._connections.add(connection)
        return connection
