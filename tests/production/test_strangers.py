"""Traffic without a credential: floods of headers, and connections that say nothing. Others do not notice."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from bench.http2_flood import Flood, Result
from rexec_server.ingress.bounds import Bounds
from tests.production.site import Site
from tests.production.test_limits import info, memory
from tests.rpc.calls import refused, request
from tests.waiting import eventually

MIB = 1024 * 1024
# The memory that a flood may add to the server. Without an ingress, 300 of these blocks add some 600 MiB.
MOST_MEMORY = 128 * MIB


def beside(site: Site, flood: Flood) -> Result:
    """Flood, and call as another until that is over, fifty times at least; each of these calls is answered."""
    over, calls = threading.Event(), 0
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood.run, over)
        while calls < 50 or not (flooding.done() or over.is_set()):
            assert info(site.stub(), site.bearer("alice")).caller == "alice"
            calls += 1
            if flood.settle == "first" and calls >= 200:  # nothing closes these
                over.set()
        return flooding.result()


@pytest.mark.parametrize(
    ("connections", "references"), [(1, 12_000), (10, 12_000), (1, 270_000)], ids=["one", "ten", "continued"]
)
def test_s2_headers_before_the_settings_are_acknowledged(site: Site, connections: int, references: int) -> None:
    """S2: every such connection is closed, the server hears nothing of it, and another caller is served."""
    info(site.stub(), site.bearer("alice"))
    before = memory(site)
    flood = Flood(
        ("127.0.0.1", site.token_port), site.path("ca.pem"), connections, frames=600, references=references, seconds=60
    )
    assert beside(site, flood).disconnected == connections
    assert memory(site) - before < MOST_MEMORY


def test_s2_headers_after_the_settings_are_acknowledged(site: Site) -> None:
    """S2: who acknowledges them is held to 16 KiB of headers for a call, so that a flood takes no memory."""
    info(site.stub(), site.bearer("alice"))
    before = memory(site)
    flood = Flood(("127.0.0.1", site.token_port), site.path("ca.pem"), frames=300, settle="first", seconds=60)
    beside(site, flood)
    assert memory(site) - before < MOST_MEMORY


def test_s2_a_stranger_gets_nowhere_where_certificates_are_asked_for(site: Site) -> None:
    """S2: the handshake fails before a header is read."""
    flood = Flood(("127.0.0.1", site.certificate_port), site.path("ca.pem"), frames=100, seconds=60)
    assert beside(site, flood).disconnected == 1


def test_silent_connections_keep_nobody_out(site: Site) -> None:
    """As many as may arrive from one address are open and say nothing, and more: a caller who comes now is served."""
    silent = [
        socket.create_connection(("127.0.0.1", site.token_port)) for _ in range(Bounds(4096).arriving_of_peer + 10)
    ]
    try:
        with site.channel() as channel:
            assert info(api_grpc.ExecutionServiceStub(channel), site.bearer("bob")).caller == "bob"
        silent[0].settimeout(60)
        with suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""  # the oldest of them have made room
    finally:
        for sock in silent:
            sock.close()


def ingress(site: Site) -> psutil.Process | None:
    """Return the process before the server's listener for tokens."""
    children = psutil.Process(site.pid).children()
    return next((child for child in children if "rexec_server.ingress" in child.cmdline()), None)


def test_an_ingress_that_is_killed_is_started_again(make_site: Callable[..., Site]) -> None:
    """The port stays the server's meanwhile: who connects then waits a moment, and is served."""
    site = make_site()
    site.start()
    assert info(site.stub(), site.bearer("alice")).caller == "alice"
    first = ingress(site)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    with site.channel() as channel:
        stub = api_grpc.ExecutionServiceStub(channel)
        assert info(stub, site.bearer("alice"), wait_for_ready=True).caller == "alice"
    again = ingress(site)
    assert again is not None
    assert again.pid != first.pid
    assert "the ingress ended (-9); starting another" in site.log


def test_a_server_that_is_killed_takes_its_ingress_along(make_site: Callable[..., Site]) -> None:
    """The next one has the port."""
    site = make_site()
    site.start()
    first = ingress(site)
    assert first is not None
    site.restart()
    assert info(site.stub(), site.bearer("alice"), wait_for_ready=True).caller == "alice"
    eventually(lambda: not first.is_running())


def test_a_server_that_stops_lets_calls_finish(make_site: Callable[..., Site]) -> None:
    """A call that waits is ended by the server, and not cut by the ingress."""
    site = make_site(stop_grace=60)
    site.start()
    asked = request("sleep", "600", wait=600)
    waiting = site.stub().Exec.future(asked, metadata=site.bearer("alice"), timeout=60)
    execution = eventually(lambda: _running(site, "alice"))
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)
    with suppress(OSError):
        eventually(lambda: socket.create_connection(("127.0.0.1", site.token_port)).close())
    os.kill(execution.pid, signal.SIGKILL)
    assert waiting.result().execution.exec_id == execution.exec_id
    assert site.process.wait(60) == 0


def _running(site: Site, name: str) -> pb.Execution | None:
    listed = site.stub().List(api.ListRequest(), metadata=site.bearer(name), timeout=60).executions
    return next((execution for execution in listed if execution.pid), None)


def test_the_audit_has_the_clients_address(site: Site) -> None:
    """The origin of a call is not hidden by what stands before the server."""
    with socket.create_connection(("127.0.0.1", site.token_port)) as sock:
        own = sock.getsockname()[0]
    site.stub().Exec(request("echo", "from where"), metadata=site.bearer("alice"), timeout=60)
    accepted = [line for line in site.audited if line["event"] == "accepted"]
    assert accepted[-1]["peer"].startswith(f"ipv4:{own}:")
    refused(lambda: info(site.stub(), [("authorization", "Bearer nobody")]), "UNAUTHENTICATED")
    failed = [line for line in site.audited if line["event"] == "unauthenticated"]
    assert failed[-1]["peer"].startswith(f"ipv4:{own}:")


def test_an_address_cannot_be_made_up(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """The name that the ingress gives to its connections counts on its own socket only, which is closed to others."""
    path = tmp_path / "public.sock"
    site = make_site(listen=["127.0.0.1:0", "127.0.0.1:0", f"unix:{path}"])
    site.start()
    liar = Liar(str(path), "\0rexec/1.1/ipv4:192.0.2.1:7")
    try:
        with grpc.insecure_channel(liar.target) as channel:
            stub = api_grpc.ExecutionServiceStub(channel)
            refused(lambda: info(stub, [("authorization", "Bearer nobody")]), "UNAUTHENTICATED")
    finally:
        liar.close()
    failed = [line for line in site.audited if line["event"] == "unauthenticated"]
    assert "192.0.2.1" in failed[-1]["peer"]
    assert failed[-1]["peer"].startswith("unix-abstract:")


class Liar:
    """Passes one connection on to a unix socket, from one that has a name of its choice."""

    def __init__(self, path: str, name: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._behind = socket.socket(socket.AF_UNIX)
        self._behind.bind(name)
        self._behind.connect(path)
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        back = threading.Thread(target=_copy, args=(self._behind, client))
        back.start()
        _copy(client, self._behind)
        back.join()
        client.close()

    def close(self) -> None:
        self._threads[0].join()
        self._behind.close()
        self._listener.close()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
