"""The web server: cheroot, with the few changes that make it hold what the gateway promises."""

from __future__ import annotations

import json
import logging
import queue
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.wsgi import Server
from flask import Flask

from rexec_server.gateway.listener import BACKLOG
from rexec_server.gateway.tls import Certificate, Tls

_log = logging.getLogger("rexec.gateway.web")

# Workers beside those that streams may hold. More would only wait for each other: Python runs one at a time.
SPARE_WORKERS = 32
# Requests that wait for a worker; beyond, the answer is 503.
WAITING_REQUESTS = 4096
# Open connections that ask nothing.
IDLE_CONNECTIONS = 4096
# A body larger than any that the application takes is not even read.
LARGEST_BODY = 8 * 1024 * 1024
# How long a request may take to arrive, and an answer to be taken, piece by piece.
SOCKET_SECONDS = 10
STOP_SECONDS = 5
# Who sends one of these twice means two readers to read two things.
_ONCE = frozenset({b"Authorization", b"Content-Length", b"Content-Type", b"Host", b"Last-Event-Id", b"Origin"})


class WebServer(Server):
    """Serves an application on a socket that listens already."""

    def __init__(self, listener: socket.socket, app: Flask, streams: int, certificate: Certificate | None) -> None:
        super().__init__(
            listener.getsockname()[:2],
            app,
            numthreads=streams + SPARE_WORKERS,
            server_name="rexec",
            request_queue_size=BACKLOG,
            timeout=SOCKET_SECONDS,
            shutdown_timeout=STOP_SECONDS,
            accepted_queue_size=WAITING_REQUESTS,
            accepted_queue_timeout=0,  # the thread that accepts must not wait
        )
        self._listener = listener
        self.software = "rexec"
        self.keep_alive_conn_limit = IDLE_CONNECTIONS
        self.max_request_header_size = 32 * 1024
        self.max_request_body_size = LARGEST_BODY
        self.ConnectionClass = _Connection
        if certificate is not None:
            self.ssl_adapter = Tls(certificate)

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """The socket that was given, where cheroot would bind one."""
        self.socket = self._listener
        return self._listener

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """To our log, which knows what must not be in it. A connection that broke is not worth a traceback."""
        _log.log(level, "%s", msg, exc_info=traceback and level >= logging.ERROR)

    def process_conn(self, conn: Any) -> None:
        """Gives a connection to a worker, once there is something to read from it.

        A new connection would hold a worker before it has said a word: browsers open some in advance, and 300 silent
        ones would stop everybody else for ten seconds.
        """
        if not conn.said_something:
            conn.said_something = True
            self.put_conn(conn)
            return
        try:
            self.requests.put(conn)
        except queue.Full:
            _turn_away(conn)


class _Headers(dict[bytes, bytes]):
    """Headers as they come in. ValueError, which becomes a 400, when one comes again that may not."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if name in _ONCE and name in self:
            raise ValueError(f"the header {name.decode()} is given more than once")
        super().__setitem__(name, value)


class _Reader(HeaderReader):
    """Leaves out what has an underscore: WSGI would take Sec_Fetch_Site for Sec-Fetch-Site."""

    def _allow_header(self, key_name: bytes) -> bool:
        return b"_" not in key_name


class _Request(HTTPRequest):
    """A request whose errors, those before any application, are JSON too."""

    header_reader = _Reader()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inheaders = _Headers()

    def parse_request(self) -> None:
        super().parse_request()
        if self.chunked_read:  # what is left of a refused body in chunks would be taken for the next request
            self.close_connection = True

    def simple_response(self, status: Any, msg: Any = "") -> None:
        code, _, phrase = str(status).partition(" ")
        if code != "100":
            self.close_connection = True
            with suppress(OSError):
                self.conn.wfile.write(_error(str(status), str(msg) or phrase, self._mode()))
            return
        super().simple_response(status, msg)

    def _mode(self) -> dict[str, str]:
        """As in every answer under /api/<mode>/, if it is known already what was asked."""
        path = getattr(self, "path", None) or b""
        parts = path.split(b"/") if isinstance(path, bytes) else []
        return {"mode": parts[2][:64].decode("latin-1")} if len(parts) > 2 and parts[1] == b"api" else {}


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request
    said_something = False


def _turn_away(conn: Any) -> None:
    """503 for whom there is no room, written by the thread that accepts: it fits into any new connection's buffer."""
    with suppress(OSError):
        if not isinstance(conn.socket, ssl.SSLSocket):
            conn.socket.send(_error("503 Service Unavailable", "too many requests are waiting; try again"))
    conn.linger = True
    conn.close()


def _error(status: str, message: str, mode: dict[str, str] | None = None) -> bytes:
    body = json.dumps({**(mode or {}), "status": "error", "error": message.strip()}).encode()
    retry = "Retry-After: 1\r\n" if status.startswith("503") else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head += "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
    return f"{head}{retry}Connection: close\r\n\r\n".encode() + body


def serve(server: WebServer) -> threading.Thread:
    """Serves in a thread of its own, until `server.stop()`."""
    server.prepare()
    thread = threading.Thread(target=server.serve, name="rexec-gateway")
    thread.start()
    return thread
