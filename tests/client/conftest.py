"""Fixtures for the client against a server that misbehaves on cue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from rexec_client import Client
from tests.client.fakes import FakeServer


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    """A client that is patient enough for a loaded machine, and fails within a test's time."""
    with Client(fake.target, retry_timeout=10, reconnect_timeout=10) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _aio_thread() -> None:
    """grpc.aio has one thread for the whole process, from its first use on: it is no test's leak."""

    async def begin() -> None:  # within a loop: without one it works only until somebody's first asyncio.run
        grpc.aio.init_grpc_aio()

    asyncio.run(begin())
