"""The gateway while the server behind it is away, and alone."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from rexec.v1 import execution_service_pb2 as api

from tests.client.fakes import FakeServer, execution, reply
from tests.gateway.alone import Alone
from tests.gateway.http import Stream, ask
from tests.servers import Server
from tests.waiting import eventually

StartServer = Callable[..., Server]
StartAlone = Callable[..., Alone]


def test_without_a_server_each_answer_is_503(alone: StartAlone) -> None:
    """With Retry-After and a sentence, for every mode and route: never 500, never a traceback."""
    gateway = alone("127.0.0.1:1")
    asks: list[tuple[str, str, Any]] = [
        ("POST", "/api/exec/me", {"cmd": "true"}),
        ("POST", "/api/poll/me", None),
        ("POST", "/api/echo/me", {}),
        ("GET", "/api/follow/me", None),
        ("POST", "/api/cancel/me", None),
        ("GET", "/v1/info", None),
        ("POST", "/v1/executions", {"shell": "true"}),
        ("GET", "/v1/executions/one/follow", None),
    ]
    for method, path, body in asks:
        answer = ask(gateway.url, method, path, body)
        assert answer.status == 503, path
        assert int(answer.headers["Retry-After"]) > 0
        assert "try again" in str(answer.json["error"])
    assert ask(gateway.url, "GET", "/openapi.json").status == 200
    assert "Traceback" not in gateway.log


def test_a_server_that_was_killed_and_comes_back(start_server: StartServer, alone: StartAlone) -> None:
    """503 meanwhile; then the same command is there, and a stream that was open goes on without a byte missing."""
    server = start_server()
    gateway = alone(server.target)
    script = "for i in $(seq 100); do echo $i; sleep 0.03; done"
    assert ask(gateway.url, "POST", "/api/exec/me", {"cmd": script}).json["status"] == "accepted"
    with Stream(gateway.url, "/api/follow/me") as stream:
        events = iter(stream)
        shown = next(event for event in events if event.name == "output").data["output"]
        server.kill()
        assert ask(gateway.url, "GET", "/api/poll/me").status == 503
        server.start()
        ended = None
        for event in events:
            shown += event.data.get("output", "") if event.name == "output" else ""
            ended = event.name
    assert ended == "end"
    assert shown == "".join(f"{number}\n" for number in range(1, 101))
    assert ask(gateway.url, "GET", "/api/poll/me").json["exit_code"] == 0


def test_it_stops_cleanly_with_open_streams(start_server: StartServer, alone: StartAlone) -> None:
    """Streams end, unfinished, the exit code is 0, and nobody waits for a timeout."""
    gateway = alone(start_server().target)
    ask(gateway.url, "POST", "/api/exec/me", {"cmd": "sleep 1000"})
    with Stream(gateway.url, "/api/follow/me") as stream:
        events = iter(stream)
        assert next(events).name == "snapshot"
        assert gateway.stop() == 0
        assert [event.name for event in events] == ["failure"]
    assert "Traceback" not in gateway.log


def test_the_server_starts_another_when_it_dies(start_server: StartServer) -> None:
    """The port is the server's: who asks meanwhile waits, and is answered by the next."""
    server = start_server("--gateway", "127.0.0.1:0")

    def gateway() -> psutil.Process:
        found = [p for p in psutil.Process(server.pid).children() if "rexec_server.gateway" in p.cmdline()]
        assert len(found) == 1
        return found[0]

    first = eventually(gateway)
    first.kill()
    assert ask(server.gateway, "GET", "/v1/info").status == 200
    assert eventually(gateway).pid != first.pid


def test_tls(start_server: StartServer, alone: StartAlone, tmp_path: Path) -> None:
    """With a certificate it speaks TLS, and who connects and says nothing stops nobody."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    gateway = alone(start_server().target, "--tls-cert", str(cert), "--tls-key", str(key))
    assert gateway.url.startswith("https://")
    trust = ssl.create_default_context(cafile=str(cert))
    with _silent(gateway.url, 3), urllib.request.urlopen(f"{gateway.url}/v1/info", context=trust, timeout=30) as answer:
        assert answer.status == 200


@contextlib.contextmanager
def _silent(url: str, count: int) -> Iterator[None]:
    """Connections that say nothing."""
    parts = urlsplit(url)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30))
        yield


def test_silent_connections_stop_nobody(start_server: StartServer, alone: StartAlone) -> None:
    """Browsers open some in advance: a connection takes a worker only once it says something."""
    gateway = alone(start_server().target, "--max-streams", "1")
    with _silent(gateway.url, 400):
        assert ask(gateway.url, "GET", "/v1/info").status == 200


def test_a_port_that_is_taken(start_server: StartServer, tmp_path: Path) -> None:
    """Asked for, it is a reason not to start; the default one is done without."""
    taken = start_server("--gateway", "127.0.0.1:0").gateway.removeprefix("http://")
    command = [
        sys.executable,
        "-m",
        "rexec_server",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        tmp_path / "two",
    ]
    refused = subprocess.run([*command, "--gateway", taken], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 78
    assert taken in refused.stderr
    assert "Traceback" not in refused.stderr


def test_in_dev_it_is_for_this_machine_alone(tmp_path: Path) -> None:
    """Everybody is let in, so only loopback is listened on."""
    command = [sys.executable, "-m", "rexec_server", "--dev", "--state-dir", tmp_path / "one", "--gateway", "0.0.0.0:0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 78
    assert "loopback" in refused.stderr


def test_a_server_that_is_older_has_no_get(alone: StartAlone) -> None:
    """An execution is shown and cancelled as before; only what Get alone can do is refused, with the reason."""
    with FakeServer() as server:
        server.on("Poll", reply(api.PollResponse(execution=execution(exec_id="one", caller="me"))))
        server.on("Cancel", reply(api.CancelResponse()))
        gateway = alone(server.target)
        assert ask(gateway.url, "GET", "/v1/executions/one").json["state"] == "STATE_RUNNING"
        assert ask(gateway.url, "POST", "/api/cancel/me").json["exec_id"] == "one"
        refused = ask(gateway.url, "GET", "/v1/executions/one?wait=1s")
        assert (refused.status, refused.json["error"]["status"]) == (501, "UNIMPLEMENTED")
