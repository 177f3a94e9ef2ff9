"""Fixtures for the command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from tests.client.fakes import FakeServer


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _aio_thread() -> None:
    """grpc.aio has one thread for the whole process, from its first use on: it is no test's leak."""

    async def begin() -> None:  # within a loop: without one it works only until somebody's first asyncio.run
        grpc.aio.init_grpc_aio()

    asyncio.run(begin())
