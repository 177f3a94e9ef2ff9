"""Whether a server lives and can serve: as HTTP for orchestrators, as grpc.health.v1 for load balancers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from rexec.v1 import execution_service_pb2 as api

from rexec_server.telemetry import endpoint as http_endpoint
from tests.rpc.calls import start
from tests.servers import Server
from tests.telemetry.scrape import WITHIN, Endpoint, calls, get
from tests.waiting import eventually

T = TypeVar("T")

SERVICES = ("", "rexec.v1.ExecutionService")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is there, and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Looping:
    """An event loop in a thread of its own."""

    def __enter__(self) -> Looping:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(WITHIN)

    def __exit__(self, *_: object) -> None:
        self.do(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def health(server: Server, service: str) -> int:
    with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=WITHIN).status)


def test_a_server_that_serves_is_alive_and_ready(watched: tuple[Server, Endpoint]) -> None:
    """Each part says that it is well, and so does grpc.health.v1 for the server and for the service."""
    server, seen = watched
    assert seen.get("/livez") == (200, "ok\n")
    assert seen.get("/readyz") == (200, "[+] index: ok\n[+] runner: ok\n[+] server: ok\n")
    assert [health(server, name) for name in SERVICES] == [SERVING, SERVING]
    seen.reaches(1, "rexec_runner_up")


def test_without_its_runner_it_is_alive_and_not_ready(watched: tuple[Server, Endpoint]) -> None:
    """A runner that does not answer makes it not ready, for both; when it answers again it is ready again."""
    server, seen = watched
    with stopped(server.runner_pid):
        eventually(lambda: seen.get("/readyz").status == 503, within=WITHIN)
        assert "[-] runner: does not answer\n" in seen.get("/readyz").text
        assert seen.get("/livez").status == 200
        for name in SERVICES:
            eventually(lambda name=name: health(server, name) == NOT_SERVING, within=WITHIN)
        seen.reaches(0, "rexec_runner_up")
    eventually(lambda: seen.get("/readyz").status == 200, within=WITHIN)
    for name in SERVICES:
        eventually(lambda name=name: health(server, name) == SERVING, within=WITHIN)
    seen.reaches(1, "rexec_runner_up")
    assert "not ready" in server.log
    assert "ready again" in server.log


def test_a_dead_runner_that_nobody_replaces_makes_it_not_ready(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Where the runner is another unit's business the server waits for it, says so, and sees it come back."""
    first = start_server()  # makes the state directory's runner
    first.terminate()
    server = start_server("--no-start-runner", "--metrics", "127.0.0.1:0")
    seen = Endpoint(server)
    os.kill(server.runner_pid, signal.SIGKILL)
    eventually(lambda: seen.get("/readyz").status == 503, within=WITHIN)
    eventually(lambda: "rexec-runner is gone" in server.log, within=WITHIN)
    command = [sys.executable, "-m", "rexec_server.runner", "--state-dir", str(server.state_dir), "--dev"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as runner:
        eventually(lambda: seen.get("/readyz").status == 200, within=WITHIN)
        assert "rexec-runner is back" in server.log
        runner.kill()


def test_a_server_that_stops_is_not_ready_while_it_finishes(start_server: Callable[..., Server]) -> None:
    """SIGTERM: from then on nobody is to come, while calls that have begun go on; then all of it ends."""
    server = start_server("--metrics", "127.0.0.1:0", "--stop-grace", "60s")
    seen = Endpoint(server)
    execution = start(server, "sleep", "600", stdin_mode=3)
    blocked = server.stub.WriteStdin.future(  # more than its pipe takes: the call goes on
        api.WriteStdinRequest(exec_id=execution.exec_id, data=b"x" * 1024 * 1024), timeout=50
    )
    seen.reaches(1, "grpc_server_started_total", **calls("WriteStdin"))
    os.kill(server.pid, signal.SIGTERM)
    eventually(lambda: "[-] server: is stopping" in seen.get("/readyz").text, within=WITHIN)
    assert seen.get("/livez").status == 200
    blocked.cancel()
    assert server.terminate() == 0


def test_an_event_loop_that_hangs_is_not_alive() -> None:
    """Threads that still answer are no sign of life: the loop is asked, and has so much time to say something."""
    hangs = threading.Event()

    async def serve() -> tuple[str, http_endpoint.Endpoint]:
        async def nothing() -> None:
            pass

        async def check() -> dict[str, str]:
            return {"index": "ok"}

        listener = socket.create_server(("127.0.0.1", 0))
        endpoint = http_endpoint.Endpoint(listener, CollectorRegistry(), nothing, check, patience=0.2)
        return f"http://127.0.0.1:{listener.getsockname()[1]}", endpoint

    with Looping() as loop:
        url, endpoint = loop.do(serve())
        assert get(f"{url}/livez") == (200, "ok\n")
        loop.loop.call_soon_threadsafe(hangs.wait)
        for path in ("/livez", "/readyz"):
            assert get(url + path) == (503, "the event loop does not answer\n")
        hangs.set()
        loop.do(endpoint.stop())


def test_nothing_else_is_served(watched: tuple[Server, Endpoint]) -> None:
    """Other paths are not there, and other methods not allowed."""
    _, seen = watched
    for path in ("/", "/metrics/", "/debug", "/livez/x"):
        assert seen.get(path).status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert seen.get("/metrics", method=method).status == 405


def test_an_address_in_use_is_said_at_the_start(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """In one line, with the address, and the server does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = refused(tmp_path, "--metrics", address)
    assert done.startswith(f"rexec-server: cannot listen on {address} for metrics: Address already in use")
    assert len(done.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("9464", "--metrics: '9464' is no address; write host:port"),
        ("127.0.0.1:99999", "--metrics: '127.0.0.1:99999': a port is 0 to 65535"),
        ("0.0.0.0:0", "--dev lets everybody in, so it listens on loopback only; 0.0.0.0:0 is not"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, address: str, what: str) -> None:
    """With what it was, and what would be right."""
    assert what in refused(tmp_path, "--metrics", address)


def refused(state_dir: Path, *flags: str) -> str:
    command = [sys.executable, "-m", "rexec_server", "--dev", "--no-gateway", "--state-dir", str(state_dir / "state")]
    listen = ["--listen", f"unix:{state_dir}/s.sock", "--no-start-runner"]
    done = subprocess.run([*command, *listen, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    return done.stderr
