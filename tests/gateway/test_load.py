"""Many at once: nobody starves, and what is too much is turned away."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.gateway.http import ask
from tests.servers import Server

STREAMS, BOUND, POLLS = 210, 200, 1000
SECONDS = 60


class Load:
    """Streams and polls from one event loop, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self.statuses: Counter[int] = Counter()
        self.lines: list[int] = []

    async def poll(self) -> int:
        """The status of a poll."""
        reader, writer = await self._ask("/api/poll/me")
        try:
            answer = await asyncio.wait_for(reader.read(), SECONDS)
        finally:
            writer.close()
        return int(answer.split()[1])

    async def follow(self, started: asyncio.Semaphore) -> None:
        """Reads a stream to its end, and counts the lines that came."""
        reader, writer = await self._ask("/api/follow/me")
        try:
            self.statuses[int((await reader.readline()).split()[1])] += 1
            started.release()
            body = await asyncio.wait_for(reader.read(), SECONDS)
        finally:
            writer.close()
        data = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
        self.lines.append(sum(event.get("output", "").count("\n") for event in data))

    async def _ask(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address, limit=1 << 20)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return reader, writer


@pytest.mark.timeout(120)
def test_a_thousand_polls_and_two_hundred_streams(start_server: Callable[..., Server]) -> None:
    """All polls are answered while all streams are taken; a stream too many is turned away; no line is lost."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url = start_server(
        "--gateway", "127.0.0.1:0", "--gateway-max-streams", str(BOUND), "--gateway-caller-streams", str(BOUND)
    ).gateway
    ask(url, "POST", "/api/exec/me", {"cmd": "for i in $(seq 1000); do echo $i; sleep 0.2; done"})

    async def run() -> tuple[Load, Counter[int], float]:
        load, started = Load(url), asyncio.Semaphore(0)
        follows = [asyncio.create_task(load.follow(started)) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            await asyncio.wait_for(started.acquire(), SECONDS)
        began = time.monotonic()
        polls = Counter(await asyncio.gather(*(load.poll() for _ in range(POLLS))))
        took = time.monotonic() - began
        await asyncio.to_thread(ask, url, "POST", "/api/cancel/me")
        await asyncio.gather(*follows)
        return load, polls, took

    load, polls, took = asyncio.run(run())
    print(f"{POLLS} polls beside {BOUND} streams: {took:.1f} s")
    assert polls == {200: POLLS}
    assert load.statuses == {200: BOUND, 503: STREAMS - BOUND}
    followed = [count for count in load.lines if count]
    assert len(followed) == BOUND
    assert len(set(followed)) == 1
