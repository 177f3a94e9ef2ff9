"""Calls of which many are made: one after the other and timed, or all at once over one connection."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import grpc
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.load.figures import Latency
from tests.servers import Server

# Each connection is one: channels to the same target share theirs otherwise.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
# Of a call among many.
CALL_SECONDS = 300

Stub: TypeAlias = "api_grpc.ExecutionServiceAsyncStub"  # known to the type checker only


def poll_latency(server: Server, exec_id: str, count: int) -> Latency:
    """Of polls one after the other, each for the newest lines. grpc.RpcError when one is refused."""
    stub, request, seconds = server.stub, api.PollRequest(exec_id=exec_id), []
    for _ in range(count):
        begun = time.perf_counter()
        stub.Poll(request, timeout=60)
        seconds.append(time.perf_counter() - begun)
    return Latency.of(seconds)


def at_once(
    server: Server, names: Sequence[str], call: Callable[[Stub, str], Awaitable[str]], hands: int = 0
) -> Counter[str]:
    """Makes a call for each name, all at once or `hands` at a time, and counts the outcomes. A status is one."""
    return asyncio.run(_at_once(server.target, names, call, hands or len(names)))


def outcome(execution: pb.Execution) -> str:
    if execution.state in (pb.STATE_STARTING, pb.STATE_RUNNING):
        return pb.State.Name(execution.state).removeprefix("STATE_").lower()
    return pb.Reason.Name(execution.reason).removeprefix("REASON_").lower()


async def _at_once(
    target: str, names: Sequence[str], call: Callable[[Stub, str], Awaitable[str]], hands: int
) -> Counter[str]:
    free = asyncio.Semaphore(hands)
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        stub: Stub = api_grpc.ExecutionServiceStub(channel)  # type: ignore[assignment]

        async def made(name: str) -> str:
            async with free:
                try:
                    return await call(stub, name)
                except grpc.RpcError as error:
                    return f"{error.code().name}: {error.details()}"

        return Counter(await asyncio.gather(*map(made, names)))
