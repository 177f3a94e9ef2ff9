"""What those who follow the same execution share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rexec_server.core.entry import Entry
from rexec_server.core.execution import CHANNELS, Execution, Key, Request, State
from rexec_server.core.record import Record
from tests.core.test_log import OUT, write_log

MANY = 1000


def running(directory: Path) -> Entry:
    """An execution whose log is in the directory."""
    return Entry(Record(1, "name", Execution(Key("me", "x"), State.RUNNING, Request(), 0)), str(directory))


def test_what_one_has_read_the_others_need_not_read(tmp_path: Path) -> None:
    """Between two wakes a log is read once at each offset, however many wait there."""
    write_log(tmp_path, [(OUT, b"one\n")], set())
    entry = running(tmp_path)
    first = entry.read(0, MANY, CHANNELS)
    at_end = entry.read(first.next_offset, MANY, CHANNELS)
    assert b"".join(chunk.data for chunk in first.chunks) == b"one\n"
    assert not at_end.items
    assert entry.read(0, MANY, CHANNELS) is first
    assert entry.read(4, MANY, CHANNELS) is at_end
    assert entry.read(0, MANY, (OUT,)) is not first
    assert entry.read(0, 2, CHANNELS).next_offset == 2


@pytest.mark.parametrize("look_again", [Entry.wake, Entry.forget_readings])
def test_a_wake_brings_what_was_written(tmp_path: Path, look_again: Callable[[Entry], None]) -> None:
    """Whoever looks again after a wake sees all that was there before it; so does who comes after others have left."""
    write_log(tmp_path, [(OUT, b"one\n")], set())
    entry = running(tmp_path)
    assert entry.read(0, MANY, CHANNELS).next_offset == 4
    write_log(tmp_path, [(OUT, b"one\n"), (OUT, b"two\n")], set())
    look_again(entry)
    assert entry.read(0, MANY, CHANNELS).next_offset == 8


def test_large_readings_are_not_kept(tmp_path: Path) -> None:
    """Of a log with gigabytes nothing stays in memory because somebody follows it."""
    write_log(tmp_path, [(OUT, b"x" * 100_000)], set())
    entry = running(tmp_path)
    assert entry.read(0, MANY * MANY, CHANNELS) is not entry.read(0, MANY * MANY, CHANNELS)


def test_all_who_wait_are_woken_once(tmp_path: Path) -> None:
    """One wake-up for each batch of output, however many wait, and none when nothing came."""

    async def wait(entry: Entry, woken: list[int], number: int) -> None:
        await entry.changed(60)
        woken.append(number)

    async def run() -> None:
        entry, woken = running(tmp_path), list[int]()
        waiting = [asyncio.create_task(wait(entry, woken, number)) for number in range(MANY)]
        await asyncio.sleep(0)
        write_log(tmp_path, [(OUT, b"one\n")], set())
        entry.wake_if_changed()
        await asyncio.gather(*waiting)
        assert sorted(woken) == list(range(MANY))
        late = asyncio.create_task(wait(entry, woken, MANY))
        await asyncio.sleep(0)
        entry.wake_if_changed()
        await asyncio.sleep(0)
        assert not late.done()
        late.cancel()

    asyncio.run(run())
