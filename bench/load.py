"""Calls that are made one after the other by one client, or by many at once; each is timed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.arithmetic import percentile
from bench.model import Sample


def sample(times: Sequence[float], wall: float) -> Sample:
    """From the seconds that each call took, and those that all took together."""
    return latencies(times) | {"rate": len(times) / wall}


def latencies(times: Sequence[float]) -> dict[str, float]:
    """From seconds, p50 and p99 in milliseconds."""
    return {"p50": percentile(times, 50) * 1e3, "p99": percentile(times, 99) * 1e3}


def by_threads(calls: Sequence[Callable[[], None]], count: int) -> Sample:
    """Each call is one client's; together they make `count`. The first error of any is raised."""
    times: list[float] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(len(calls) + 1)

    def client(call: Callable[[], None]) -> None:
        ready.wait()
        try:
            for _ in range(count // len(calls)):
                begun = time.perf_counter()
                call()
                times.append(time.perf_counter() - begun)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    if errors:
        raise errors[0]
    return sample(times, wall)


def by_one(call: Callable[[], None], count: int) -> Sample:
    """One client, without a thread of its own."""
    times = []
    start = time.perf_counter()
    for _ in range(count):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return sample(times, time.perf_counter() - start)


async def by_tasks(calls: Sequence[Callable[[], Awaitable[None]]], count: int) -> Sample:
    """As `by_threads`, in one event loop."""
    times: list[float] = []

    async def client(call: Callable[[], Awaitable[None]]) -> None:
        for _ in range(count // len(calls)):
            begun = time.perf_counter()
            await call()
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(client(call))
    return sample(times, time.perf_counter() - begun)
