"""A flood of Exec calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rexec.v1 import execution_service_pb2 as api

from bench.loads.caller import METADATA, again_and_again, stubs

AT_ONCE, CONNECTIONS = 100, 4


@asynccontextmanager
async def flood(target: str) -> AsyncIterator[None]:
    """Keep 100 starts of `true` under way."""
    async with stubs(target, CONNECTIONS) as opened:
        calls = [
            lambda stub=opened[number % CONNECTIONS]: stub.Exec(api.ExecRequest(arguments=["true"]), metadata=METADATA)
            for number in range(AT_ONCE)
        ]
        async with again_and_again(calls):
            yield
