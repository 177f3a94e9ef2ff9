"""Which executions there are: a SQLite file, written by one thread, with one commit for all that came together.

It holds what makes ids safe (reservations, digests, tombstones) and what lists need. Output and exit are in the
spool; what the index says of an end was read there.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rexec_server.core.database import Database
from rexec_server.core.errors import Busy, Conflict, ExecIdUsed, Exhausted, StillRunning
from rexec_server.core.execution import Execution, Extent, Key, Request, State, final_state
from rexec_server.core.spool import ExitRecord

SCHEMA_VERSION = 1
TOMBSTONE_SECONDS = 30 * 86400
_SCHEMA = """
CREATE TABLE execution (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    caller TEXT NOT NULL,
    exec_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,       -- of its directory in the spool
    digest BLOB NOT NULL,
    state INTEGER NOT NULL,
    request TEXT NOT NULL,           -- JSON of core.execution.Request
    exclusive_group TEXT NOT NULL,
    pid INTEGER NOT NULL DEFAULT 0,
    create_time INTEGER NOT NULL,
    start_time INTEGER NOT NULL DEFAULT 0,
    end_time INTEGER NOT NULL DEFAULT 0,
    expire_time INTEGER NOT NULL DEFAULT 0,
    delete_time INTEGER NOT NULL DEFAULT 0, -- since then only a tombstone
    exit BLOB,                       -- JSON of core.spool.ExitRecord
    extent TEXT,                     -- JSON of core.execution.Extent, at the end
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (caller, exec_id)
);
CREATE INDEX execution_live ON execution (caller, exclusive_group) WHERE state < 3;
CREATE INDEX execution_expiry ON execution (expire_time) WHERE state >= 3 AND delete_time = 0;
CREATE INDEX execution_tombstone ON execution (delete_time) WHERE delete_time > 0;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO meta VALUES ('digest_key', randomblob(32));
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One execution as the index knows it."""

    seq: int
    name: str
    execution: Execution

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Record:
        request = json.loads(row["request"])
        request |= {
            "arguments": tuple(request["arguments"]),
            "environment_names": tuple(request["environment_names"]),
        }
        execution = Execution(
            key=Key(row["caller"], row["exec_id"]),
            state=State(row["state"]),
            request=Request(**request),
            create_time=row["create_time"],
            start_time=row["start_time"],
            pid=row["pid"],
            expire_time=row["expire_time"],
            exit=ExitRecord.from_bytes(row["exit"]) if row["exit"] else None,
            extent=_extent(row["extent"]),
        )
        return cls(row["seq"], row["name"], execution)


@dataclass(frozen=True, slots=True)
class Query:
    """Which executions to list: None means any. `before` is the seq that the page begins below."""

    caller: str | None
    page_size: int
    before: int | None = None
    states: Sequence[State] = ()
    labels: tuple[tuple[str, str], ...] = ()
    exclusive_group: str | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """The outcome of a reservation: the record, and whether it had been there before."""

    record: Record
    existed: bool


class Index:
    """The index file. Coroutines answer when what they wrote is on disk."""

    def __init__(self, path: str) -> None:
        self._database = Database(path, _SCHEMA, SCHEMA_VERSION)
        self.digest_key = bytes(self._database.read("SELECT value FROM meta WHERE name = 'digest_key'"))

    def close(self) -> None:
        self._database.close()

    async def reserve(
        self, key: Key, name: str, digest: bytes, request: Request, max_running: int, now: int
    ) -> Reserved:
        """Takes the id for this request, once and for all. Conflict, ExecIdUsed, Busy, Exhausted."""

        def job(db: sqlite3.Connection) -> Reserved:
            existing = _find(db, key)
            if existing:
                if existing["delete_time"]:
                    raise ExecIdUsed(key.exec_id)
                if existing["digest"] != digest:
                    raise Conflict(key.exec_id)
                return Reserved(Record.from_row(existing), existed=True)
            _check_group(db, key, request.exclusive_group)
            _check_running(db, max_running)
            db.execute(
                "INSERT INTO execution (caller, exec_id, name, digest, state, request, exclusive_group, create_time)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, name, digest, State.STARTING, json.dumps(asdict(request)), request.exclusive_group, now),
            )
            row = _find(db, key)
            assert row is not None
            return Reserved(Record.from_row(row), existed=False)

        return await self._database.do(job)

    def note_started(self, name: str, pid: int, start_time: int) -> None:
        self._database.note(
            lambda db: db.execute(
                "UPDATE execution SET state=?, pid=?, start_time=? WHERE name=? AND state=?",
                (State.RUNNING, pid, start_time, name, State.STARTING),
            )
        )

    def note_ended(
        self, name: str, record: ExitRecord, extent: Extent, pid: int, start_time: int, expire_time: int
    ) -> None:
        """Every later request sees it: a group is free when its caller has seen the end."""
        self._database.note(
            lambda db: db.execute(
                "UPDATE execution SET state=?, pid=?, start_time=?, end_time=?, expire_time=?, exit=?, extent=?,"
                " kept_bytes=? WHERE name=? AND state < 3",
                (
                    final_state(record),
                    pid,
                    start_time,
                    record.end_time,
                    expire_time,
                    record.to_bytes(),
                    json.dumps(extent),
                    extent.kept_bytes,
                    name,
                ),
            )
        )

    async def get(self, key: Key) -> Record | None:
        def job(db: sqlite3.Connection) -> Record | None:
            row = _find(db, key)
            return Record.from_row(row) if row and not row["delete_time"] else None

        return await self._database.do(job)

    async def unfinished(self) -> list[Record]:
        return await self._database.do(
            lambda db: [Record.from_row(row) for row in db.execute("SELECT * FROM execution WHERE state < 3")]
        )

    async def forgotten(self) -> set[str]:
        """Names of the tombstones: the spool should not have their directories any more."""
        return await self._database.do(
            lambda db: {row["name"] for row in db.execute("SELECT name FROM execution WHERE delete_time > 0")}
        )

    async def page(self, query: Query) -> list[Record]:
        """A page, newest first."""
        where, values = ["delete_time = 0"], []
        for clause, value in (
            ("caller = ?", query.caller),
            ("seq < ?", query.before),
            ("exclusive_group = ?", query.exclusive_group),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        if query.states:
            where.append(f"state IN ({','.join('?' * len(query.states))})")
            values += [int(state) for state in query.states]
        for name, value in query.labels:
            where.append("EXISTS (SELECT 1 FROM json_each(request, '$.labels') WHERE key = ? AND value = ?)")
            values += [name, value]
        # Of the text only our own clauses, above; what the caller gave is bound.
        sql = f"SELECT * FROM execution WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"  # noqa: S608
        return await self._database.do(
            lambda db: [Record.from_row(row) for row in db.execute(sql, (*values, query.page_size))]
        )

    async def delete(self, name: str, now: int) -> bool:
        """Makes an ended execution a tombstone. False when it was one already; StillRunning when it has not ended."""

        def job(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT exec_id, state FROM execution WHERE name=? AND delete_time=0", (name,)).fetchone()
            if row is None:
                return False
            if row["state"] < State.SUCCEEDED:
                raise StillRunning(row["exec_id"])
            db.execute(
                "UPDATE execution SET delete_time=?, request='{}', exit=NULL, extent=NULL, kept_bytes=0 WHERE name=?",
                (now, name),
            )
            return True

        return await self._database.do(job)

    async def expired(self, now: int) -> list[Record]:
        """Ended executions whose time is over; the rest of them next time."""
        sql = "SELECT * FROM execution WHERE state >= 3 AND delete_time = 0 AND expire_time <= ? LIMIT 1000"
        return await self._database.do(lambda db: [Record.from_row(row) for row in db.execute(sql, (now,))])

    async def excess(self, max_count: int, max_bytes: int) -> list[Record]:
        """The oldest of the ended executions, as far as they are too many, or keep too much. Never a live one."""
        sql = """
            SELECT * FROM execution WHERE seq IN (
                SELECT seq FROM (
                    SELECT seq, ROW_NUMBER() OVER newest AS number, SUM(kept_bytes) OVER newest AS bytes
                    FROM execution WHERE state >= 3 AND delete_time = 0
                    WINDOW newest AS (ORDER BY end_time DESC, seq DESC)
                ) WHERE number > ? OR bytes > ?
            ) LIMIT 1000"""
        return await self._database.do(
            lambda db: [Record.from_row(row) for row in db.execute(sql, (max_count, max_bytes))]
        )

    def drop_old_tombstones(self, now: int) -> None:
        before = now - TOMBSTONE_SECONDS * 10**9
        sql = "DELETE FROM execution WHERE delete_time > 0 AND delete_time < ?"
        self._database.note(lambda db: db.execute(sql, (before,)))


def _extent(text: str | None) -> Extent:
    if not text:
        return Extent()
    start, end, produced, dropped = json.loads(text)
    return Extent(start, end, tuple(produced), tuple(dropped))


def _find(db: sqlite3.Connection, key: Key) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM execution WHERE caller=? AND exec_id=?", key).fetchone()
    return row


def _check_group(db: sqlite3.Connection, key: Key, group: str) -> None:
    if not group:
        return
    running = db.execute(
        "SELECT exec_id FROM execution WHERE caller=? AND exclusive_group=? AND state < 3", (key.caller, group)
    ).fetchone()
    if running:
        raise Busy(group, running["exec_id"])


def _check_running(db: sqlite3.Connection, max_running: int) -> None:
    (count,) = db.execute("SELECT COUNT(*) FROM execution WHERE state < 3").fetchone()
    if count >= max_running:
        raise Exhausted("running executions", f"{count} executions run; at most {max_running} may")


def now_ns() -> int:
    return time.time_ns()
