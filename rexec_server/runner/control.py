"""The socket on which a supervisor takes requests for its one command, from whichever server runs now."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable

from rexec_server.core.spool import CONTROL, Reason
from rexec_server.runner.counters import Counters
from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.records import is_removed
from rexec_server.runner.stdin import StdinWrite
from rexec_server.runner.supervision import Supervision
from rexec_server.runner.wire import PAYLOAD, Connection, Message, listen, peer_uid, remove_socket

RETRY_SECONDS = 1.0
# Requests, and parts of them, that a supervisor of the first version does not know; it does not know `info` either.
FEATURES = ("writer", "payload")


class Control:
    """Answers `info`, `signal`, `end`, `attend`, `floor` and `stdin`, each by one message; `stdin_abandon` by none."""

    def __init__(self, loop: Loop, directory: int, supervision: Supervision, trusted_uids: frozenset[int]) -> None:
        self._loop = loop
        self._supervision = supervision
        self._trusted_uids = trusted_uids
        self._connections: set[Connection] = set()
        self._writes: dict[tuple[Connection, int], StdinWrite] = {}
        self._directory = directory
        self._listener: socket.socket | None = None
        self._closed = False
        self._names = self._watch_names()
        self._listen()

    def close(self) -> None:
        self._closed = True
        if self._names is not None:
            self._loop.names.forget(self._names)
        if self._listener:
            self._stop_listening()
            remove_socket(self._directory, CONTROL)
        for connection in list(self._connections):
            connection.close()

    def _watch_names(self) -> int | None:
        try:
            return self._loop.names.watch(self._directory, self._look_at_names)
        except OSError:  # no descriptor is left: the socket stays as it is
            return None

    def _look_at_names(self) -> None:
        """Makes the socket anew when its name is gone. When all of the directory is, nothing may go on."""
        if is_removed(self._directory):
            self._supervision.lose()
        elif self._listener and not os.access(CONTROL, os.F_OK, dir_fd=self._directory):
            self._stop_listening()
            self._listen()

    def _stop_listening(self) -> None:
        assert self._listener is not None
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self._listener = None

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
        for of, number in list(self._writes):
            if of is connection:
                self._abandon(connection, number)

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
            case "info":
                reply({"features": FEATURES})
            case "attend":
                self._supervision.attend(bool(request.get("holder")))
                reply({})
            case "floor":
                self._supervision.hold(request["floor"])
                reply({})
            case "stdin":
                self._write_stdin(connection, request, reply)
            case "stdin_abandon":
                self._abandon(connection, request["write"])
            case unknown:
                reply({"error": f"unknown request {unknown!r}"})

    def _write_stdin(self, connection: Connection, request: Message, reply: Callable[[Message], None]) -> None:
        feed = self._supervision.stdin
        counters = feed.counters if feed else Counters.read(self._directory)
        write = StdinWrite(
            request["offset"],
            # A server of the first version sends it within the JSON.
            request[PAYLOAD] if PAYLOAD in request else base64.b64decode(request["data"]),
            request["eof"],
            lambda error: self._finish((connection, request["number"]), write, counters, error, reply),
            bytes.fromhex(request.get("writer", "")),
        )
        if feed is None or not counters.state.open:
            # Whoever lost the answer to the write with eof asks again: all of it was accepted before.
            repeated = write.eof and write.end == counters.written(write.writer, write.offset)
            return reply({"error": None if repeated else "closed", **_progress(write, counters)})
        self._writes[connection, request["number"]] = write
        feed.write(write)

    def _abandon(self, connection: Connection, number: int) -> None:
        write = self._writes.get((connection, number))
        if write and self._supervision.stdin:
            self._supervision.stdin.abandon(write)

    def _finish(
        self,
        key: tuple[Connection, int],
        write: StdinWrite,
        counters: Counters,
        error: str | None,
        reply: Callable[[Message], None],
    ) -> None:
        self._writes.pop(key, None)
        reply({"error": error, **_progress(write, counters)})


def _progress(write: StdinWrite, counters: Counters) -> Message:
    written = counters.written(write.writer, write.offset) or 0
    skipped = {"skipped": write.skipped} if write.skipped else {}
    return {"bytes_written": written, "open": bool(counters.state.open), **skipped}
