"""Long work of many callers, done in slices on the event loop: one slice at a time, then everybody else's events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TypeVar
from weakref import WeakKeyDictionary

# Others wait that long for a slice; a longer one would gain nothing, as a turn of the loop costs 0.05 ms.
SLICE_SECONDS = 0.002

T = TypeVar("T")
# A generator whose steps each take well below a slice; it returns the result.
Steps = Generator[None, None, T]

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def sliced(steps: Steps[T]) -> T:
    """Do the steps, and return their result. Work that takes less than a slice does not wait for anything."""
    ended, result = _slice(steps)
    if not ended:
        await asyncio.sleep(0)
    while not ended:
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            ended, result = _slice(steps)
            if not ended:
                await asyncio.sleep(0)  # with the turn in hand: two slices never follow each other
    assert result is not None
    return result[0]


def one_slice(steps: Steps[object]) -> bool:
    """Do the steps of one slice. Return True when that was all."""
    return _slice(steps)[0]


def at_once(steps: Steps[T]) -> T:
    """Do all steps, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


def _slice(steps: Steps[T]) -> tuple[bool, tuple[T] | None]:
    until = time.monotonic() + SLICE_SECONDS
    try:
        while True:
            next(steps)
            if time.monotonic() >= until:
                return False, None
    except StopIteration as end:
        return True, (end.value,)
