"""Commands that write as fast as they can, and those who follow them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rexec.v1 import execution_service_pb2 as api

from bench.loads.caller import METADATA, again_and_again, stubs

TALKERS, STALLED, READERS = 8, 300, 60
BYTES_PER_SECOND = 1_000_000
_WRITES = """
import os, time
begun = time.monotonic()
for number in range(1, 10**9):
    os.write(1, b"x" * 999 + b"\\n")
    time.sleep(max(0, begun + number / 1e3 - time.monotonic()))
"""
PER_CONNECTION = 10

Stubs = Sequence[Any]


@asynccontextmanager
async def stalled_followers(target: str) -> AsyncIterator[None]:
    """Run 8 `yes`, and 300 who follow them and take nothing after the first message."""
    async with stubs(target, STALLED // PER_CONNECTION) as opened, _commands(opened, [["yes"]] * TALKERS) as ids:
        calls = [
            opened[number % len(opened)].Follow(_follow(ids[number % TALKERS]), metadata=METADATA)
            for number in range(STALLED)
        ]
        for call in calls:
            await call.read()  # its window fills, and is never emptied
        yield
        for call in calls:
            call.cancel()


@asynccontextmanager
async def readers(target: str) -> AsyncIterator[None]:
    """Run 60 readers of one command that writes 1 MB/s, 1 kB at a time."""
    async with _reading(target, [sys.executable, "-c", _WRITES], pace=None):
        yield


@asynccontextmanager
async def slow_readers(target: str) -> AsyncIterator[None]:
    """Run 60 readers who each take 1 MB/s of one `yes`, and so miss most of it."""
    async with _reading(target, ["yes"], pace=BYTES_PER_SECOND):
        yield


@asynccontextmanager
async def _reading(target: str, command: Sequence[str], pace: int | None) -> AsyncIterator[None]:
    """Read with each reader. pace: the most that each takes, in bytes per second."""
    async with stubs(target, READERS // PER_CONNECTION) as opened, _commands(opened, [command]) as ids:

        def reader(number: int) -> Callable[[], Awaitable[None]]:
            async def read() -> None:
                loop = asyncio.get_running_loop()
                begun, taken = loop.time(), 0
                async for message in opened[number % len(opened)].Follow(_follow(ids[0]), metadata=METADATA):
                    taken += sum(len(chunk.data) for chunk in message.output.chunks)
                    if pace is not None:
                        await asyncio.sleep(max(0.0, begun + taken / pace - loop.time()))

            return read

        async with again_and_again([reader(number) for number in range(READERS)]):
            await asyncio.sleep(1)
            yield


def _follow(exec_id: str) -> api.FollowRequest:
    return api.FollowRequest(exec_id=exec_id, tail_bytes=0)


@asynccontextmanager
async def _commands(opened: Stubs, commands: Sequence[Sequence[str]]) -> AsyncIterator[Sequence[str]]:
    """Run executions for the time of the block."""
    ids = [
        (await opened[0].Exec(api.ExecRequest(arguments=command), metadata=METADATA)).execution.exec_id
        for command in commands
    ]
    try:
        yield ids
    finally:
        for exec_id in ids:
            request = api.CancelRequest(exec_id=exec_id)
            request.kill_grace.FromSeconds(0)
            await opened[0].Cancel(request, metadata=METADATA)
