"""Fixtures: real servers. And the rule that a test leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.servers import Server
from tests.waiting import eventually

# Hundreds of servers are started: each would compile rexec anew, which is a quarter of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# What the tests read in logs, people read too; that of programs has tests of its own.
os.environ["REXEC_LOG_FORMAT"] = os.environ["REXEC_GATEWAY_LOG_FORMAT"] = "text"


@pytest.fixture(scope="session", autouse=True)
def _no_fork_support() -> None:
    """The tests start programs beside live gRPC channels; see rexec_server.cli for why this must be off."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """What a shell starts in the background is deaf to SIGINT, and the programs of the tests would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with flags of the test's choice, and ends them with it."""
    servers: list[Server] = []

    def start(*flags: str, name: str = "state", env: dict[str, str] | None = None, cwd: Path | None = None) -> Server:
        server = Server(tmp_path / name, *flags, env=env, cwd=cwd)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def modules_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a module."""
    server = Server(tmp_path_factory.mktemp("module") / "state")
    yield server
    server.close()


@pytest.fixture
def own_server(start_server: Callable[..., Server]) -> Server:
    """A server that no other test has: to be killed, or counted in."""
    return start_server()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """A server with the defaults; its own for each test, unless the module says SHARES_SERVER = True.

    In a shared one each test is a caller of its own, so that no id is taken already; the caller is no operator.
    """
    if getattr(request.module, "SHARES_SERVER", False):
        shared: Server = request.getfixturevalue("modules_server")
        shared.caller = f"test-{uuid.uuid4().hex[:8]}"
        return shared
    start: Callable[..., Server] = request.getfixturevalue("start_server")
    return start()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaked processes, descriptors and threads fail the test that leaked them."""
    if getattr(request.module, "SHARES_SERVER", False):
        request.getfixturevalue("modules_server")  # it was there before, and stays
    fds, threads, children = _own_fds(), threading.active_count(), _own_children()
    yield
    eventually(lambda: _own_children() <= children, within=60)
    eventually(lambda: threading.active_count() <= threads, within=60)
    # gRPC keeps a few descriptors (its poller, its event engine) once it was used at all.
    eventually(lambda: len(_own_fds() - fds) <= 8, within=60)


def _own_children() -> set[int]:
    """While others come and go all over the machine, which psutil may stumble over."""
    while True:
        with suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process().children()}


def _own_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))
