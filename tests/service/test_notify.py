"""The programs tell the manager that started them what they are doing, as systemd asks of Type=notify."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.alone import Alone
from tests.production.site import Site
from tests.rpc.calls import run
from tests.servers import Server, runner_command
from tests.service.manager import SECONDS, Manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_the_server_is_ready_when_it_listens_and_stops_when_told(
    manager: Manager, start_server: Callable[..., Server]
) -> None:
    """READY once, with where it listens; nothing of the runner and the gateway that it starts itself; then STOPPING."""
    server = start_server("--gateway", "127.0.0.1:0", env=manager.environment)
    ready = manager.next()
    assert ready["READY"] == "1"
    assert server.target in ready["STATUS"]
    assert b"NOTIFY_SOCKET" not in run(server, "env").chunks[0].data
    server.terminate()
    assert manager.next() == {"STOPPING": "1"}


def test_a_reload_is_announced_and_ends(manager: Manager, tmp_path: Path) -> None:
    """SIGHUP: RELOADING with the time of the monotonic clock, and READY when the files were read."""
    site = Site(tmp_path / "site")
    try:
        site.start(manager.environment)
        assert manager.next()["READY"] == "1"
        before = time.monotonic_ns() // 1000
        site.reload()
        reloading = manager.next()
        assert reloading.pop("RELOADING") == "1"
        assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert reloading == {}
        assert manager.next() == {"READY": "1"}
    finally:
        site.close()


def test_the_gateway_is_ready_when_it_listens(manager: Manager, tmp_path: Path) -> None:
    """The one that runs alone, whether its server is there or not."""
    gateway = Alone(tmp_path, f"unix:{tmp_path}/nobody.sock", environment=manager.environment)
    assert manager.next() == {"READY": "1", "STATUS": f"listens on {gateway.url}"}
    assert gateway.stop() == 0
    assert manager.next() == {"STOPPING": "1"}


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract address"])
def test_the_runner_is_ready_when_it_answers(tmp_path: Path, abstract: bool) -> None:
    """When it has found what its predecessor left, and listens."""
    manager = Manager(tmp_path, abstract=abstract)
    runner = subprocess.Popen(runner_command(tmp_path / "state"), env={**os.environ, **manager.environment})
    try:
        assert manager.next() == {"READY": "1"}
        assert (tmp_path / "state" / "runner.sock").is_socket()
        runner.send_signal(signal.SIGTERM)
        assert manager.next() == {"STOPPING": "1"}
        assert runner.wait(SECONDS) == 0
    finally:
        runner.kill()
        runner.wait()
        manager.close()


@pytest.mark.parametrize("address", ["/nobody/is/there", "vsock:2:1234", ""])
def test_a_manager_that_cannot_be_told_hinders_nobody(start_server: Callable[..., Server], address: str) -> None:
    """A socket that is not there, or of a kind that is not ours: the server serves."""
    server = start_server(env={"NOTIFY_SOCKET": address})
    assert run(server, "true").execution.exit_code == 0
