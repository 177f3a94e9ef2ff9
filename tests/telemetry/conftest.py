"""Servers that let themselves be looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.servers import Server
from tests.telemetry.scrape import Endpoint


@pytest.fixture
def watched(start_server: Callable[..., Server]) -> tuple[Server, Endpoint]:
    """A server of the test's own, with metrics."""
    server = start_server("--metrics", "127.0.0.1:0")
    return server, Endpoint(server)
