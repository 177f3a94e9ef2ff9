"""The caller who makes the load: its connections, and what it does again and again until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import grpc
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from bench.candidates.rexec import CHANNEL_OPTIONS

NAME = "glutton"
METADATA = (("authorization", f"Bearer {NAME}"),)


@asynccontextmanager
async def channels(target: str, count: int) -> AsyncIterator[Sequence[grpc.aio.Channel]]:
    """Open so many connections."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS))
            for _ in range(count)
        ]


@asynccontextmanager
async def stubs(target: str, count: int) -> AsyncIterator[Sequence[api_grpc.ExecutionServiceStub]]:
    async with channels(target, count) as opened:
        yield [api_grpc.ExecutionServiceStub(channel) for channel in opened]


@asynccontextmanager
async def again_and_again(calls: Sequence[Callable[[], Awaitable[object]]]) -> AsyncIterator[None]:
    """Make each call for ever, one after the other; a refusal is an answer."""

    async def repeat(call: Callable[[], Awaitable[object]]) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                await call()

    tasks = [asyncio.create_task(repeat(call)) for call in calls]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
