"""The index: labels of old and new executions, and which of the ended ones are too many."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexec_server.core.execution import Extent, Key, Request
from rexec_server.core.index import Index, Query
from rexec_server.core.journal import NoJournal
from rexec_server.core.origin import Origin
from rexec_server.core.reservation import Ceilings, Reservation
from rexec_server.core.schema import SCHEMA
from rexec_server.core.spool import ExitRecord, Reason

LABELS = ("a", "b", "c")
EIGHT = 8  # subsets of the labels


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(str(tmp_path / "index.sqlite"), NoJournal())
    yield opened
    opened.close()


def labels(number: int) -> dict[str, str]:
    """Return the subset of that number."""
    return {name: "x" for bit, name in enumerate(LABELS) if number >> bit & 1}


async def add(index: Index, caller: str, name: str, **fields: object) -> None:
    reservation = Reservation(Key(caller, name), True, name, b"", Request(**fields), Origin("token"), now=1)  # type: ignore[arg-type]
    await index.reserve(reservation, Ceilings(all=1000, rule=1000))


async def found(index: Index, caller: str | None, wanted: dict[str, str], before: int | None = None) -> list[str]:
    query = Query(caller, 100, before, labels=tuple(wanted.items()))
    return [record.name for record in await index.page(query)]


def test_labels_are_found_as_a_naive_look_finds_them(index: Index) -> None:
    """For each set of labels: those that have them all, newest first, one caller's or everybody's; no deleted ones."""

    async def run() -> None:
        for caller in ("me", "other"):
            for number in range(EIGHT):
                await add(index, caller, f"{caller}{number}", labels=labels(number))
        record = ExitRecord(Reason.EXITED, 1, 0, 0, output_complete=True, exit_code=0)
        await index.record_ended("me7", record, Extent(), 0, 0, 0)
        assert await index.delete("me7", 5)
        for wanted in range(EIGHT):
            mine = [f"me{number}" for number in reversed(range(EIGHT)) if number & wanted == wanted and number != 7]
            others = [f"other{number}" for number in reversed(range(EIGHT)) if number & wanted == wanted]
            assert await found(index, "me", labels(wanted)) == mine
            assert await found(index, None, labels(wanted)) == others + mine
            assert await found(index, "me", labels(wanted), before=4) == [name for name in mine if int(name[2:]) < 3]
        assert await found(index, "me", {"a": "other"}) == []

    asyncio.run(run())


def test_labels_of_an_older_version_are_found(tmp_path: Path) -> None:
    """An index that had no table of them gets one when it is opened."""
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as db:
        for step in SCHEMA[:6]:
            db.executescript(step)
        db.execute("PRAGMA user_version=6")
        request = json.dumps(asdict(Request(("true",), labels={"a": "x", "b": "y"}, rule="r")))
        db.execute(
            "INSERT INTO execution (caller, exec_id, name, digest, state, request, exclusive_group, create_time)"
            " VALUES ('me', 'old', 'old', x'00', 1, ?, '', 1)",
            (request,),
        )
    db.close()
    opened = Index(str(path), NoJournal())
    try:
        assert asyncio.run(found(opened, "me", {"a": "x", "b": "y"})) == ["old"]
        assert asyncio.run(found(opened, "me", {"a": "y"})) == []
    finally:
        opened.close()


@given(
    sizes=st.lists(st.integers(0, 5), max_size=8), max_count=st.integers(0, 9), max_bytes=st.integers(0, 20)
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_oldest_are_too_many(sizes: list[int], max_count: int, max_bytes: int) -> None:
    """So many are kept, and so much of them: the newest. A live one is in no count."""

    async def run(index: Index) -> list[str]:
        await add(index, "me", "live")
        for number, size in enumerate(sizes):
            await add(index, "me", str(number))
            record = ExitRecord(Reason.EXITED, number, size, 0, output_complete=True, exit_code=0)
            await index.record_ended(str(number), record, Extent(0, size, (size, 0)), 0, 0, 0)
        return [record.name for record in await index.excess(max_count, max_bytes)]

    with tempfile.TemporaryDirectory() as directory:
        opened = Index(f"{directory}/index.sqlite", NoJournal())
        try:
            superfluous = asyncio.run(run(opened))
        finally:
            opened.close()
    kept = [
        str(number)
        for number in range(len(sizes))
        if len(sizes) - number <= max_count and sum(sizes[number:]) <= max_bytes
    ]
    assert superfluous == [str(number) for number in range(len(sizes)) if str(number) not in kept]
