"""Fixtures: a server with its gateway, and a gateway alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.alone import Alone
from tests.servers import Server

Start = Callable[..., Server]


@pytest.fixture
def with_gateway(start_server: Start) -> Start:
    """Starts a server with flags of the test's choice, and its gateway."""
    return lambda *flags, **more: start_server("--gateway", "127.0.0.1:0", *flags, **more)


@pytest.fixture
def url(with_gateway: Start) -> str:
    """Where the gateway of a server with the defaults is."""
    return with_gateway().gateway


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., Alone]]:
    """Starts `rexec-gateway`, and ends it with the test."""
    started: list[Alone] = []

    def start(target: str, *flags: str) -> Alone:
        started.append(Alone(tmp_path, target, *flags))
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()
