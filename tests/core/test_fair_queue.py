"""Callers take turns: how much one of them wants does not delay another."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from rexec_server.core.fair_queue import FairQueue
from rexec_server.core.turns import LONG_SECONDS, Turns


def test_callers_take_turns() -> None:
    """Of those who wait each caller has one turn in each round, and one caller's own go in their order."""

    async def scenario() -> list[str]:
        queue, order = FairQueue(1), list[str]()

        async def work(caller: str, name: str) -> None:
            async with queue.turn(caller):
                order.append(name)
                await asyncio.sleep(0)

        wanted = [*(("a", f"a{number}") for number in range(5)), ("b", "b0"), ("b", "b1"), ("c", "c0")]
        await asyncio.gather(*(work(caller, name) for caller, name in wanted))
        return order

    assert asyncio.run(scenario()) == ["a0", "a1", "b0", "c0", "a2", "b1", "a3", "a4"]


def test_as_many_as_the_queue_is_wide_are_in() -> None:
    """No more are in at once, and who waits comes in as soon as one leaves."""

    async def scenario() -> list[int]:
        queue, inside, seen = FairQueue(3), 0, list[int]()

        async def work() -> None:
            nonlocal inside
            async with queue.turn("a"):
                inside += 1
                await asyncio.sleep(0)
                seen.append(inside)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(20)))
        return seen

    seen = asyncio.run(scenario())
    assert len(seen) == 20
    assert max(seen) == 3


def test_who_gives_up_takes_no_turn() -> None:
    """A caller that goes away while it waits, or in the moment of its turn, leaves the turn to the next."""

    async def scenario() -> None:
        queue = FairQueue(1)
        await queue.enter("a")
        waits, chosen = (asyncio.create_task(queue.enter(caller)) for caller in ("b", "c"))
        last = asyncio.create_task(queue.enter("d"))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.sleep(0)
        queue.leave()  # the turn is c's, which does not know it yet
        chosen.cancel()
        with suppress(asyncio.CancelledError):
            await chosen
        async with asyncio.timeout(60):
            await last

    asyncio.run(scenario())


def test_a_turn_that_lasts_too_long_keeps_nobody_waiting() -> None:
    """After its time the next one enters; the end of the long one does not let a second one in."""

    async def scenario() -> None:
        queue, ending = FairQueue(1), asyncio.Event()

        async def hangs() -> None:
            async with queue.turn("a", at_most=0.01):
                await ending.wait()

        long = asyncio.create_task(hangs())
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await queue.enter("b")
        waits = asyncio.create_task(queue.enter("c"))
        ending.set()
        await long
        await asyncio.sleep(0)
        assert not waits.done()
        queue.leave()
        await waits

    asyncio.run(scenario())


def test_one_turn_in_a_pass_of_the_loop() -> None:
    """A hundred who are woken at once do not all work in one pass: a call that comes has its own in between."""

    async def scenario() -> list[int]:
        turns, passes, taken = Turns(), 0, list[int]()

        async def work() -> None:
            await turns.take("a")
            taken.append(passes)

        tasks = [asyncio.create_task(work()) for _ in range(100)]
        while not all(task.done() for task in tasks):
            passes += 1
            await asyncio.sleep(0)
        return taken

    taken = asyncio.run(scenario())
    assert len(set(taken)) == 100


class Clock:
    """Stands still until it is moved, and tells a processor time that is used by saying so."""

    def __init__(self) -> None:
        self.now = self.used = 0.0


def test_after_a_long_turn_its_caller_rests() -> None:
    """A caller that took long waits for as long: others' requests come first meanwhile, however long one's queue is."""

    async def scenario() -> list[str]:
        clock, order, begun = Clock(), list[str](), asyncio.Event()
        turns = Turns(lambda: clock.now, lambda: clock.used)

        async def work(caller: str, seconds: float) -> None:
            await turns.take(caller)
            clock.used += seconds
            order.append(caller)
            begun.set()

        greedy = [asyncio.create_task(work("greedy", 2 * LONG_SECONDS)) for _ in range(2)]
        await begun.wait()
        for _ in range(5):
            await work("modest", 0)
        clock.now += LONG_SECONDS  # it rests still
        await work("modest", 0)
        clock.now += LONG_SECONDS
        await asyncio.gather(*greedy)
        return order

    assert asyncio.run(scenario()) == ["greedy", *["modest"] * 6, "greedy"]


def test_a_turn_that_is_given_up_in_its_moment_is_the_next_ones() -> None:
    """A call that goes away when its turn has just come leaves it to others."""

    async def scenario() -> None:
        turns = Turns()
        await turns.take("a")
        chosen, last = (asyncio.create_task(turns.take(caller)) for caller in ("b", "c"))
        await asyncio.sleep(0)  # both wait, and a's turn is over with this pass
        chosen.cancel()
        with suppress(asyncio.CancelledError):
            await chosen
        async with asyncio.timeout(60):
            await last

    asyncio.run(scenario())
