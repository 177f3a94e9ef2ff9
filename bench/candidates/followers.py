"""Many followers in one process: `python -m bench.candidates.followers KIND TARGET COUNT LINES [EXEC_ID]`.

KIND is `rexec` (Follow calls over ten connections) or `socket` (a connection for each). Says `ready` when all follow,
and at the end how long each of the LINES took to reach each follower, in seconds, as one JSON list.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import grpc
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from bench.candidates.rexec import CHANNEL_OPTIONS
from bench.files import raise_limit

CONNECTIONS = 10
# Beginning at once would make a queue of them: a follower's own beginning is not what is measured.
BEGIN_AT_ONCE = 100

Follow = Callable[[int, asyncio.Event], Awaitable[list[float]]]


async def main() -> None:
    kind, target, count, lines, *exec_id = sys.argv[1:]
    raise_limit()
    if kind == "rexec":
        channels = [grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) for _ in range(CONNECTIONS)]
        times = await _all(_rexec(channels, exec_id[0], int(lines)), int(count))
        for channel in channels:
            await channel.close()
    else:
        times = await _all(_socket(int(target), int(lines)), int(count))
    print(json.dumps(times), flush=True)


async def _all(follow: Follow, count: int) -> list[float]:
    tasks = []
    for first in range(0, count, BEGIN_AT_ONCE):
        group = [(number, asyncio.Event()) for number in range(first, min(first + BEGIN_AT_ONCE, count))]
        tasks += [asyncio.create_task(_one(follow, number, ready)) for number, ready in group]
        await asyncio.gather(*(ready.wait() for _, ready in group))
    print("ready", flush=True)
    return [taken for times in await asyncio.gather(*tasks) for taken in times]


async def _one(follow: Follow, number: int, ready: asyncio.Event) -> list[float]:
    try:
        return await follow(number, ready)
    finally:
        ready.set()  # or who waits for it would wait for ever


def _rexec(channels: list[grpc.aio.Channel], exec_id: str, lines: int) -> Follow:
    async def follow(number: int, ready: asyncio.Event) -> list[float]:
        stub = api_grpc.ExecutionServiceStub(channels[number % len(channels)])
        call = stub.Follow(api.FollowRequest(exec_id=exec_id, tail_bytes=0))  # only what comes from now on
        times: list[float] = []
        async for response in call:
            ready.set()  # with the snapshot, which comes first
            for chunk in response.output.chunks:
                times += _since(chunk.data)
            if len(times) >= lines:
                call.cancel()
                break
        return times

    return follow


def _socket(port: int, lines: int) -> Follow:
    async def follow(_: int, ready: asyncio.Event) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        ready.set()
        times: list[float] = []
        while len(times) < lines:
            times += _since(await reader.readline())
        writer.close()
        return times

    return follow


def _since(data: bytes) -> list[float]:
    """How long ago each of the whole lines was written, by the clock that all processes share."""
    now = time.monotonic_ns()
    return [(now - int(line)) / 1e9 for line in data.split()]


if __name__ == "__main__":
    asyncio.run(main())
