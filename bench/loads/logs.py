"""A log of a million pieces, read in every way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from bench.loads.caller import METADATA, again_and_again, stubs

CONNECTIONS = 4
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"tail_lines": 1},
    {"tail_lines": 10_000},
    {"tail_lines": 2_000_000},
    {"tail_bytes": 1_000_000},
    {"offset": 0},
    {"offset": 500_001, "text": True},
    {"offset": 0, "channels": [pb.CHANNEL_STDERR]},
)


@asynccontextmanager
async def every_way(target: str, exec_id: str) -> AsyncIterator[None]:
    """Keep a Poll and a Follow under way for each way to begin."""
    async with stubs(target, CONNECTIONS) as opened:

        def poll(stub: Any, way: dict[str, Any]) -> Callable[[], Awaitable[object]]:
            return lambda: stub.Poll(api.PollRequest(exec_id=exec_id, **way), metadata=METADATA)

        def follow(stub: Any, way: dict[str, Any]) -> Callable[[], Awaitable[object]]:
            async def read() -> None:
                async for _ in stub.Follow(api.FollowRequest(exec_id=exec_id, **way), metadata=METADATA):
                    pass

            return read

        calls = [kind(opened[number % CONNECTIONS], way) for number, way in enumerate(WAYS) for kind in (poll, follow)]
        async with again_and_again(calls):
            yield
