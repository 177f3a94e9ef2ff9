"""Who waits for a file is woken, whatever goes wrong with others."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from rexec_server.core.waker import Waker


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), KeyError("damaged")])
def test_a_look_that_fails_is_repeated_and_stops_no_other(tmp_path: Path, error: Exception) -> None:
    """Without a descriptor, or of a damaged record: at each check it is called again, and so are those behind it."""
    calls = {"fails": 0, "works": 0}

    async def watch() -> None:
        waker, both = Waker(), asyncio.Event()

        def note(name: str) -> None:
            calls[name] += 1
            if min(calls.values()) >= 2:
                both.set()
            if name == "fails":
                raise error

        for name in calls:
            (tmp_path / name).touch()
            waker.on_write(str(tmp_path / name), lambda name=name: note(name))
        waker.start()
        (tmp_path / "fails").write_text("x")
        try:
            async with asyncio.timeout(30):
                await both.wait()
        finally:
            waker.stop()

    asyncio.run(watch())


def test_others_have_their_turn_while_thousands_are_looked_at(tmp_path: Path) -> None:
    """With or without a watch each is looked at, some at a time."""
    many = 5000

    async def watch() -> None:
        waker = Waker()
        looked = [0] * many

        def look(number: int) -> None:
            sum(range(3000))
            looked[number] += 1

        for number in range(many):
            path = tmp_path / str(number)
            if number % 2:
                path.touch()
            waker.on_write(str(path), lambda number=number: look(number))  # what is not there has no watch
        waker.start()
        turns: list[int] = []
        try:
            async with asyncio.timeout(60):
                while not all(looked):
                    turns.append(sum(looked))
                    await asyncio.sleep(0)
        finally:
            waker.stop()
        assert len(set(turns)) > 5, "all were looked at in one turn"

    asyncio.run(watch())


def test_what_is_forgotten_is_not_looked_at(tmp_path: Path) -> None:
    """Also when it was about to be, in the round that has begun."""
    calls: list[int] = []

    async def watch() -> None:
        waker, last = Waker(), asyncio.Event()
        handles: list[int] = []

        def look(number: int) -> None:
            calls.append(number)
            for other in handles:
                waker.forget(other)
            last.set()

        for number in range(5):
            handles.append(waker.on_write(str(tmp_path / "none"), lambda number=number: look(number)))
        waker.start()
        try:
            async with asyncio.timeout(30):
                await last.wait()
                await asyncio.sleep(0)
        finally:
            waker.stop()

    asyncio.run(watch())
    assert len(calls) == 1
