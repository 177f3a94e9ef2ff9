"""Looks at files that hang: bounded in time, and in number for each caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from rexec_server.core.errors import Unavailable
from rexec_server.policy.lookups import Lookups


def test_what_a_look_finds_is_told() -> None:
    """The value comes back, and so does what it raises."""

    def fail() -> None:
        raise ValueError("not so")

    async def scenario() -> int:
        lookups = Lookups()
        with pytest.raises(ValueError, match="not so"):
            await lookups.run("a", fail)
        return await lookups.run("a", lambda: 7)

    assert asyncio.run(scenario()) == 7


def test_a_caller_whose_looks_hang_is_told_and_others_go_on() -> None:
    """After its time a look is given up; with so many of them a caller is refused at once, and another is not."""
    answers = threading.Event()
    hang: Callable[[], bool] = partial(answers.wait, 60)

    async def scenario() -> None:
        lookups = Lookups(seconds=0.01, most_of_one=2)
        for _ in range(2):
            with pytest.raises(Unavailable, match="does not answer within"):
                await lookups.run("a", hang)
        with pytest.raises(Unavailable, match="2 looks at files"):
            await lookups.run("a", hang)
        assert await lookups.run("b", lambda: True)
        answers.set()

    async def patient() -> None:
        lookups, calls = Lookups(most_of_one=100), []
        for _ in range(20):  # more than have a turn at once
            calls.append(asyncio.create_task(lookups.run("a", hang)))
        await asyncio.sleep(0)
        assert await lookups.run("b", lambda: True)
        answers.set()
        assert await asyncio.gather(*calls) == [True] * 20

    asyncio.run(scenario())
    answers.clear()
    asyncio.run(patient())
