"""Calls with very many elements, which are all refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from bench.loads.caller import METADATA, again_and_again, channels

CONNECTIONS = 4
_SERVICE = "/rexec.v1.ExecutionService"
# A field that no message has: tag and value.
_UNKNOWN = b"\xc0\x19\x01"


def requests() -> list[tuple[str, bytes]]:
    """Return a call's path, and its request as on the wire: made once, so that the load costs its own side little."""
    names = {f"n{number}": "" for number in range(100_000)}
    messages = (
        ("Exec", api.ExecRequest(arguments=["x"] * 200_000)),
        ("Exec", api.ExecRequest(arguments=["x"], environment_variables=names)),
        ("Exec", api.ExecRequest(arguments=["x"], labels=names)),
        ("Exec", api.ExecRequest(arguments=[""] * 2_000_000)),
        ("List", api.ListRequest(labels=names)),
        ("List", api.ListRequest(states=[pb.STATE_RUNNING] * 200_000)),
        ("Poll", api.PollRequest(exec_id="x", channels=[pb.CHANNEL_STDOUT] * 200_000)),
    )
    encoded = [(f"{_SERVICE}/{name}", message.SerializeToString()) for name, message in messages]
    return [*encoded, (f"{_SERVICE}/Exec", _UNKNOWN * 1_000_000)]


@asynccontextmanager
async def flood(target: str) -> AsyncIterator[None]:
    """Send each kind of them at any time, on four connections."""
    async with channels(target, CONNECTIONS) as opened:

        def call(number: int, path: str, data: bytes) -> Callable[[], Awaitable[object]]:
            method = opened[number % CONNECTIONS].unary_unary(path)
            return lambda: method(data, metadata=METADATA)

        async with again_and_again([call(number, *request) for number, request in enumerate(requests())]):
            yield
