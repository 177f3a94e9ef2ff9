"""The web server: cheroot, with the few changes that make it hold what the gateway promises."""

from __future__ import annotations

import json
import logging
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.wsgi import Gateway_10, Server
from flask import Flask

from rexec_server.gateway.arrivals import LONGEST_HEAD, MOST, MOST_OF_PEER, Arrivals
from rexec_server.gateway.listener import BACKLOG
from rexec_server.gateway.slow import Peers, TimedReader, peer_of
from rexec_server.gateway.tls import Certificate, Tls
from rexec_server.peers import Open

_log = logging.getLogger("rexec.gateway.web")

# Workers beside those that streams may hold. More would only wait for each other: Python runs one at a time.
SPARE_WORKERS = 32
# Of these, how many are held by requests of which a large part has not arrived yet: all such, and those of one address.
LARGE_REQUESTS = SPARE_WORKERS * 3 // 4
PER_PEER = SPARE_WORKERS // 2
# Requests that wait for a worker; beyond, the answer is 503.
WAITING_REQUESTS = 4096
# Open connections that ask nothing; and all of them, of which one address may have half.
IDLE_CONNECTIONS = 4096
CONNECTIONS = IDLE_CONNECTIONS + 1024
# A body larger than any that the application takes is not even read.
LARGEST_BODY = 8 * 1024 * 1024
# How long a request may take to arrive, handshake and body included; and each piece of an answer to be taken.
SOCKET_SECONDS = 10
STOP_SECONDS = 5
# Who sends one of these twice means two readers to read two things.
_ONCE = frozenset({b"Authorization", b"Content-Length", b"Content-Type", b"Host", b"Last-Event-Id", b"Origin"})
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(rb"[0-9]+")
_CHUNK = re.compile(rb"[0-9A-Fa-f]+[ \t]*(?:;.*)?\r\n")


class WebServer(Server):
    """Serves an application on a socket that listens already."""

    def __init__(
        self,
        listener: socket.socket,
        app: Flask,
        streams: int,
        certificate: Certificate | None,
        *,
        per_peer: int | None = PER_PEER,
        request_seconds: float = SOCKET_SECONDS,
    ) -> None:
        """per_peer: None where everybody comes from one address, a proxy's."""
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
        self.max_request_header_size = LONGEST_HEAD
        self.max_request_body_size = LARGEST_BODY
        self.ConnectionClass = _Connection
        self.gateway = _Gateway
        self.request_seconds = request_seconds
        self.peers = Peers(per_peer or LARGE_REQUESTS, LARGE_REQUESTS, WAITING_REQUESTS, self._enqueue)
        most = CONNECTIONS + streams
        self.open = Open(most, most // 2 if per_peer else most)
        self._arrivals = Arrivals(self._arrived, request_seconds, MOST, MOST_OF_PEER if per_peer else MOST)
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
        """Reads a connection once there is something to read from it; a new one has not said a word yet."""
        if conn.said_something:
            self._arrivals.take(conn)
            return
        conn.said_something = True
        crowded = self.open.enter(peer_of(conn))
        if crowded:
            conn.turn_away()
            return
        conn.entered = True
        self.put_conn(conn)

    def prepare(self) -> None:
        super().prepare()
        self._arrivals.start()

    def stop(self) -> None:
        super().stop()
        self._arrivals.stop()

    def _arrived(self, conn: Any, whole: bool) -> None:
        """Give a request to a worker; one that is large comes in while the worker reads it."""
        if not (self._enqueue(conn) if whole else self.peers.arrive(conn)):
            conn.turn_away()

    def _enqueue(self, conn: Any) -> bool:
        try:
            self.requests.put(conn)
        except queue.Full:
            return False
        return True


class _Headers(dict[bytes, bytes]):
    """Headers as they come in. ValueError, which becomes a 400, when one comes again that may not."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if name in _ONCE and name in self:
            raise ValueError(f"the header {name.decode()} is given more than once")
        super().__setitem__(name, value)


class _Reader(HeaderReader):
    """ValueError, which becomes a 400, for what RFC 9112 calls invalid: a proxy may read it as another request.

    Leaves out what has an underscore: WSGI would take Sec_Fetch_Site for Sec-Fetch-Site.
    """

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:
        headers = super().__call__(_Lines(rfile, _unfolded), hdict)
        length = headers.get(b"Content-Length")
        if length is not None and not _LENGTH.fullmatch(length):
            raise ValueError("the header Content-Length is no number")
        if length is not None and b"Transfer-Encoding" in headers:
            raise ValueError("Content-Length and Transfer-Encoding exclude each other")
        return headers

    def _transform_key(self, key_name: bytes) -> bytes:
        if not _NAME.fullmatch(key_name):
            raise ValueError("the name of a header has characters that it may not have")
        return key_name.title()

    def _allow_header(self, key_name: bytes) -> bool:
        return b"_" not in key_name


class _Lines:
    """A file whose lines are checked as they are read."""

    def __init__(self, rfile: Any, check: Callable[[bytes], None]) -> None:
        self._rfile, self._check = rfile, check

    def readline(self, *size: int) -> bytes:
        line: bytes = self._rfile.readline(*size)
        self._check(line)
        return line

    def read(self, *size: int) -> bytes:
        data: bytes = self._rfile.read(*size)
        return data


def _unfolded(line: bytes) -> None:
    if line[:1] in (b" ", b"\t"):
        raise ValueError("a header must be on one line")


def _chunk_size(line: bytes) -> None:
    if not _CHUNK.fullmatch(line):
        raise ValueError("the size of a chunk is no number")


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

    def read_request_line(self) -> bool:
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]
        except ValueError:  # "http://[", which urllib refuses
            self.simple_response("400 Bad Request", "Malformed Request-URI")
            return False

    def read_request_headers(self) -> bool:
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        if self.response_protocol == "HTTP/1.0" and b"Transfer-Encoding" in self.inheaders:
            self.simple_response("400 Bad Request", "HTTP/1.0 has no Transfer-Encoding")
            return False
        return True

    def send_headers(self) -> None:
        if self.conn.rfile.timed.is_over():  # whatever is left of the body is not waited for
            self.close_connection = True
        super().send_headers()

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
    counted = False  # among those that its peer holds
    entered = False  # among those that are open
    arrival: Any = None

    def __init__(self, server: Any, sock: Any, *args: Any) -> None:
        super().__init__(server, sock, *args)
        self.rfile = TimedReader(sock, server.request_seconds)

    def communicate(self) -> bool:
        try:
            return bool(super().communicate())  # type: ignore[no-untyped-call]
        finally:
            self.server.peers.arrived(self)

    def close(self) -> None:
        if self.entered:
            self.entered = False
            self.server.open.leave(peer_of(self))
        super().close()

    def turn_away(self) -> None:
        """503 for whom there is no room. It waits for nobody: it fits into any new connection's buffer."""
        with suppress(OSError):
            if not isinstance(self.socket, ssl.SSLSocket):
                self.socket.send(_error("503 Service Unavailable", "too many requests are waiting; try again"))
        self.linger = True
        self.close()


class _Body:
    """A request's body, which says when it has been read: from then on the request holds no place of its peer."""

    def __init__(self, request: Any) -> None:
        if request.chunked_read:
            request.rfile.rfile = _Lines(request.rfile.rfile, _chunk_size)
        self._body, self._conn = request.rfile, request.conn
        self._notice()

    @property
    def remaining(self) -> int:
        return int(getattr(self._body, "remaining", 0))

    def read(self, *size: Any) -> bytes:
        return self._noticed(self._body.read(*size))

    def readline(self, *size: Any) -> bytes:
        return self._noticed(self._body.readline(*size))

    def _noticed(self, data: bytes) -> bytes:
        self._notice()
        return data

    def _notice(self) -> None:
        if not self.remaining and getattr(self._body, "closed", True):
            self._conn.server.peers.arrived(self._conn)


class _Gateway(Gateway_10):
    def __init__(self, request: Any) -> None:
        request.rfile = _Body(request)
        super().__init__(request)


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
