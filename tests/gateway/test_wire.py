"""What is wrong beneath any application: requests that are no HTTP, and requests that hardly arrive."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.authority import Authority
from rexec_server.gateway.app import create
from rexec_server.gateway.arrivals import BODY_AHEAD, MOST_OF_PEER, Arrival
from rexec_server.gateway.listener import LOOPBACK_NAMES, listen
from rexec_server.gateway.tls import Certificate
from rexec_server.gateway.web import SPARE_WORKERS, WebServer, serve

SECONDS = 1.0
HEAD = b"POST /api/echo/- HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GOOD = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def _serve(request_seconds: float, certificate: Certificate | None = None) -> Iterator[int]:
    gateway = create("127.0.0.1:1", LOOPBACK_NAMES, any_address=False, max_streams=1)
    listener = listen("127.0.0.1:0")
    port = listener.getsockname()[1]
    server = WebServer(listener, gateway.app, 1, certificate, request_seconds=request_seconds)
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


@pytest.fixture(scope="module")
def patient() -> Iterator[int]:
    """Provide a gateway that waits for longer than any test: an answer does not come from another's time being over."""
    yield from _serve(600)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Provide a patient one with TLS, and what its clients trust."""
    authority, place = Authority(), tmp_path_factory.mktemp("tls")
    pair = authority.for_server("127.0.0.1")
    for name, data in (("server.pem", pair.certificate), ("server.key", pair.key)):
        (place / name).touch(mode=0o600)
        (place / name).write_bytes(data)
    trusted = ssl.create_default_context(cadata=authority.certificate.decode())
    certificate = Certificate(str(place / "server.pem"), str(place / "server.key"))
    for port in _serve(600, certificate):
        yield port, trusted


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


def _crowd(stack: ExitStack, port: int, start: bytes, addresses: int = 40, each: int = 2) -> None:
    """Open connections from many addresses that begin, and then stay silent."""
    for address in range(2, 2 + addresses):
        for _ in range(each):
            stack.enter_context(_connect(port, f"127.0.0.{address}")).sendall(start)


@pytest.mark.parametrize(
    "start",
    [b"G", HEAD, HEAD + b"Content-Length: 1000\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"],
    ids=["line", "head", "body", "chunks"],
)
def test_s8_slow_requests_from_many_addresses_stop_nobody(patient: int, start: bytes) -> None:
    """S8: forty addresses have more requests under way than there are workers, and a good one is answered meanwhile."""
    with ExitStack() as slow:
        _crowd(slow, patient, start)
        assert _ask(patient, GOOD).split()[1] == b"200"


def test_s8_half_a_handshake_from_many_addresses_stops_nobody(secure: tuple[int, ssl.SSLContext]) -> None:
    """S8: a TLS hello that does not go on holds no worker, so that another client is served."""
    port, trusted = secure
    with ExitStack() as slow:
        _crowd(slow, port, bytes.fromhex("16030100ff010000fb0303"))
        with trusted.wrap_socket(_connect(port), server_hostname="127.0.0.1") as sock:
            sock.sendall(GOOD)
            assert sock.recv(65536).split()[1] == b"200"


def test_the_oldest_of_an_address_makes_room(patient: int) -> None:
    """One more that does not go on than an address may have: the first of them is closed."""
    with ExitStack() as slow:
        oldest = slow.enter_context(_connect(patient, "127.0.0.9"))
        oldest.sendall(b"G")
        for _ in range(MOST_OF_PEER):
            slow.enter_context(_connect(patient, "127.0.0.9")).sendall(b"G")
        assert oldest.recv(1) == b""
        assert _ask(patient, GOOD).split()[1] == b"200"


def test_requests_one_after_the_other_on_one_connection(secure: tuple[int, ssl.SSLContext]) -> None:
    """Sent at once, the second part of one beginning within the first's bytes: each has its answer, in their order."""
    port, trusted = secure
    first = GOOD.replace(b"Connection: close\r\n", b"")
    unknown = HEAD.replace(b"/api/echo/-", b"/nowhere") + b"Content-Length: 2\r\n\r\n{}"
    with trusted.wrap_socket(_connect(port), server_hostname="127.0.0.1") as sock:
        sock.sendall(first + unknown + GOOD)
        answers = b"".join(iter(lambda: sock.recv(65536), b""))
    assert [line.split()[1] for line in answers.split(b"\n") if line.startswith(b"HTTP/1.1 ")] == [
        b"200",
        b"404",
        b"200",
    ]


@pytest.mark.parametrize("size", [2, BODY_AHEAD - 2, BODY_AHEAD + 2, 4 * BODY_AHEAD])
def test_bodies_of_every_size_arrive(port: int, size: int) -> None:
    """Those that are read before a worker is asked for, and those that a worker reads; cut in two anywhere."""
    body = b'{"a": "' + b"x" * (size - 9) + b'"}' if size > 9 else b"{}"
    head = HEAD.replace(b"/api/echo/-", b"/v1/executions") + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    for cut in (1, len(head) - 2, len(head), len(head) + 1):
        with _connect(port) as sock:
            sock.sendall((head + body)[:cut])
            sock.sendall((head + body)[cut:])
            answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
        assert answer.split()[1] in (b"400", b"503"), answer  # it has no such field; or there is no server behind


@pytest.mark.parametrize(
    ("data", "enough", "whole"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, True),
        (b"GET / HTTP/1.1\nHost: a\n\n", True, True),
        (HEAD + b"Content-Length: 4\r\n\r\n{}", False, False),
        (HEAD + b"content-length:4\r\n\r\n{  }", True, True),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", True, False),
        (HEAD + b"Content-Length: x\r\n\r\n", True, True),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n", True, False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", True, False),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 6000, True, False),
    ],
)
def test_when_a_worker_is_asked_for(data: bytes, enough: bool, whole: bool) -> None:
    """When all is there, or when only a worker can go on; whether it came at once or byte by byte."""
    at_once = Arrival(data)
    assert (at_once.is_enough(), at_once.whole) == (enough, whole)
    if len(data) < 1000:
        slowly = Arrival(b"")
        for number in range(len(data)):
            slowly.data += data[number : number + 1]
            assert slowly.is_enough() == (enough and number == len(data) - 1)
