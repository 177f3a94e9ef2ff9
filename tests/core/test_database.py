"""Jobs of the index: what only looks holds up nothing, and nothing takes longer than it may."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_server.core.database import Database
from rexec_server.core.errors import Exhausted

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT SUM(i) FROM n"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(str(tmp_path / "db.sqlite"), ("CREATE TABLE one (two);",), lambda: None, look_seconds=0.3)
    yield opened
    opened.close()


def count(db: sqlite3.Connection) -> int:
    found: int = db.execute("SELECT COUNT(*) FROM one").fetchone()[0]
    return found


def test_a_look_that_takes_too_long_is_given_up(database: Database) -> None:
    """Its caller hears so, with what to do; the next look is answered."""

    async def run() -> None:
        with pytest.raises(Exhausted, match=r"more than 0\.3 s"):
            await database.look(lambda db: db.execute(ENDLESS).fetchone())
        assert await database.look(count) == 0

    asyncio.run(run())


def test_what_is_written_does_not_wait_for_a_look(database: Database) -> None:
    """A start is on disk before a look that began earlier has ended."""

    async def run() -> None:
        order: list[str] = []

        async def look() -> None:
            with pytest.raises(Exhausted):
                await database.look(lambda db: db.execute(ENDLESS).fetchone())
            order.append("look")

        async def write() -> None:
            for number in range(3):
                await database.do(lambda db, number=number: db.execute("INSERT INTO one VALUES (?)", (number,)))
            order.append("written")

        await asyncio.gather(look(), write())
        assert order == ["written", "look"]

    asyncio.run(run())


def test_a_look_sees_what_was_noted_before(database: Database) -> None:
    """A look sees a note that is not waited for, and is not on disk yet."""

    async def run() -> None:
        for number in range(1, 20):
            database.note(lambda db: db.execute("INSERT INTO one VALUES (1)"))
            assert await database.look(count) == number

    asyncio.run(run())


def test_a_look_writes_nothing(database: Database) -> None:
    """Only the writer's thread changes the file."""

    async def run() -> None:
        with pytest.raises(Exception, match="readonly"):
            await database.look(lambda db: db.execute("INSERT INTO one VALUES (1)"))
        assert await database.look(count) == 0

    asyncio.run(run())
