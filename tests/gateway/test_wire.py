"""What is wrong beneath any application: requests that are no HTTP, and requests that hardly arrive."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from rexec_server.gateway.app import create
from rexec_server.gateway.listener import LOOPBACK_NAMES, listen
from rexec_server.gateway.web import SPARE_WORKERS, WebServer, serve

SECONDS = 1.0
HEAD = b"POST /api/echo/- HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GOOD = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def _serve(request_seconds: float) -> Iterator[int]:
    gateway = create("127.0.0.1:1", LOOPBACK_NAMES, any_address=False, max_streams=1)
    listener = listen("127.0.0.1:0")
    port = listener.getsockname()[1]
    server = WebServer(listener, gateway.app, 1, None, request_seconds=request_seconds)
    thread = serve(server)
    yield port
    server.stop()
    thread.join()
    gateway.upstream.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A gateway with few workers and the usual patience."""
    yield from _serve(10)


@pytest.fixture(scope="module")
def hasty() -> Iterator[int]:
    """A gateway with little patience."""
    yield from _serve(SECONDS)


def _connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))


def _ask(port: int, request: bytes) -> bytes:
    with _connect(port) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize(
    ("name", "status", "request_bytes"),
    [
        ("space before the colon", 400, HEAD + b"Content-Length : 2\r\n\r\n{}"),
        ("length with a sign", 400, HEAD + b"Content-Length: +2\r\n\r\n{}"),
        ("length with an underscore", 400, HEAD + b"Content-Length: 0_2\r\n\r\n{}"),
        ("negative length", 400, HEAD + b"Content-Length: -1\r\n\r\n{}"),
        ("empty length", 400, HEAD + b"Content-Length:\r\n\r\n{}"),
        (
            "length and chunks",
            400,
            HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ),
        ("chunks in 1.0", 400, HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("negative chunk", 400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
        ("folded first header", 400, b"GET / HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n"),
        ("bad URI", 400, b"GET http://[/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("bad origin", 403, GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: http://[\r\n\r\n")),
        ("bad address as origin", 403, GOOD.replace(b"\r\n\r\n", b"\r\nOrigin: http://[x]\r\n\r\n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_invalid_is_refused_in_json(port: int, name: str, status: int, request_bytes: bytes) -> None:
    """Nothing that another reader could take for another request is served, and none is our own mistake."""
    answer = _ask(port, request_bytes.replace(b"Content-Type:", b"Connection: close\r\nContent-Type:"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode(), name
    assert body.startswith(b"{")


def test_slow_requests_of_one_peer_stop_nobody_else(port: int) -> None:
    """With more slow connections than there are workers, a good request from elsewhere is answered at once."""
    with ExitStack() as slow:
        for _ in range(2 * SPARE_WORKERS):
            slow.enter_context(_connect(port, "127.0.0.2")).sendall(b"G")
        began = time.monotonic()
        assert _ask(port, GOOD).split()[1] == b"200"
        assert time.monotonic() - began < 5  # of the ten that the slow ones have


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX: ", HEAD + b"Content-Length: 1000\r\n\r\n"], ids=["head", "body"]
)
def test_a_request_that_trickles_is_cut(hasty: int, start: bytes) -> None:
    """A byte now and then buys no time: the deadline is one for the whole request."""
    over = threading.Event()
    with _connect(hasty) as sock:
        sock.sendall(start)
        trickle = threading.Thread(target=_trickle, args=(sock, over))
        trickle.start()
        began = time.monotonic()
        try:
            status = sock.recv(65536).split()[1]
        finally:
            over.set()
            trickle.join()
    assert status in (b"400", b"401", b"408")
    assert time.monotonic() - began < 10


def _trickle(sock: socket.socket, over: threading.Event) -> None:
    while not over.wait(SECONDS / 5):
        try:
            sock.send(b"a")
        except OSError:
            return
