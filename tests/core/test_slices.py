"""Long work in slices, beside each other."""

from __future__ import annotations

import asyncio

from rexec_server.core.slices import Steps, at_once, one_slice, sliced


def busy(steps: int, done: list[int]) -> Steps[int]:
    """Counts to a number, far longer than a slice."""
    for number in range(steps):
        sum(range(20_000))
        done[0] = number + 1
        yield
    return steps


def test_others_run_between_slices() -> None:
    """Work that needs a turn of the loop gets it after each slice, not after all the work."""

    async def run() -> None:
        done, turns = [0], list[int]()
        work = asyncio.create_task(sliced(busy(300, done)))
        while not work.done():
            turns.append(done[0])
            await asyncio.sleep(0)
        assert await work == 300
        assert len(set(turns)) > 3, "it was done at once"

    asyncio.run(run())


def test_long_works_take_turns() -> None:
    """However many there are, between two turns of the loop one of them does one slice."""

    async def run() -> None:
        counts = [[0] for _ in range(5)]
        works = [asyncio.create_task(sliced(busy(100, count))) for count in counts]
        await asyncio.sleep(0)  # each has its first slice
        before = [count[0] for count in counts]
        while not any(work.done() for work in works):
            await asyncio.sleep(0)
            after = [count[0] for count in counts]
            assert sum(one != other for one, other in zip(before, after, strict=True)) <= 1
            before = after
        await asyncio.gather(*works)

    asyncio.run(run())


def test_little_work_does_not_wait() -> None:
    """It is done before any other has a turn."""

    async def run() -> None:
        async def other() -> None:
            order.append("other")

        order: list[str] = []
        waiting = asyncio.create_task(other())
        assert await sliced(busy(1, [0])) == 1
        order.append("work")
        await waiting
        assert order == ["work", "other"]

    asyncio.run(run())


def test_work_can_be_done_at_once() -> None:
    """Work is done at once if no other work waits."""
    assert at_once(busy(3, [0])) == 3
    assert one_slice(busy(0, [0]))
