"""The socket on which a supervisor takes requests for its one command, from whichever server runs now."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable

from rexec_server.core.spool import CONTROL, Reason, StdinState
from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.stdin import StdinWrite
from rexec_server.runner.supervision import Supervision
from rexec_server.runner.wire import Connection, Message, listen, peer_uid, remove_socket

RETRY_SECONDS = 1.0


class Control:
    """Answers `signal`, `end`, `attend`, `floor` and `stdin`, each with one message."""

    def __init__(self, loop: Loop, directory: int, supervision: Supervision, trusted_uids: frozenset[int]) -> None:
        self._loop = loop
        self._supervision = supervision
        self._trusted_uids = trusted_uids
        self._connections: set[Connection] = set()
        self._writes: dict[Connection, StdinWrite] = {}
        self._directory = directory
        self._listener: socket.socket | None = None
        self._closed = False
        self._listen()

    def close(self) -> None:
        self._closed = True
        if self._listener:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            remove_socket(self._directory, CONTROL)
        for connection in list(self._connections):
            connection.close()

    def _listen(self) -> None:
        if self._closed:
            return
        try:
            listener = self._listener = listen(self._directory, CONTROL)
        except OSError:  # no inode is left, say: nothing that its command should see
            self._loop.call_later(RETRY_SECONDS, self._listen)
        else:
            self._loop.watch(self._listener.fileno(), READ, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # the caller has gone, or there are too many descriptors
            return
        if peer_uid(sock) not in self._trusted_uids:
            sock.close()
            return
        self._connections.add(Connection(self._loop, sock, self._answer, self._forget))

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        write = self._writes.pop(connection, None)
        if write:
            write.abandoned = True

    def _answer(self, connection: Connection, request: Message) -> None:
        def reply(answer: Message) -> None:
            connection.send({"number": request.get("number"), **answer})

        match request["op"]:
            case "signal":
                delivered = self._supervision.signal(request["signal"], request["group"])
                reply({} if delivered else {"error": "ended"})
            case "end":
                self._supervision.end(Reason(request["reason"]), request.get("grace"))
                reply({})
            case "attend":
                self._supervision.attend(bool(request.get("holder")))
                reply({})
            case "floor":
                self._supervision.hold(request["floor"])
                reply({})
            case "stdin":
                self._write_stdin(connection, request, reply)
            case unknown:
                reply({"error": f"unknown request {unknown!r}"})

    def _write_stdin(self, connection: Connection, request: Message, reply: Callable[[Message], None]) -> None:
        feed = self._supervision.stdin
        data = base64.b64decode(request["data"])
        if feed is None or not feed.state.open:
            state = feed.state if feed else StdinState(open=0)
            # Whoever lost the answer to the write with eof asks again: all of it was accepted before.
            repeated = request["eof"] and request["offset"] + len(data) == state.written
            return reply({"error": None if repeated else "closed", **_progress(state)})

        def done(error: str | None) -> None:
            self._writes.pop(connection, None)
            reply({"error": error, **_progress(feed.state)})

        write = StdinWrite(request["offset"], data, request["eof"], done)
        self._writes[connection] = write
        feed.write(write)


def _progress(state: StdinState) -> Message:
    return {"bytes_written": state.written, "open": bool(state.open)}
