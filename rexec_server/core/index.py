"""Which executions there are: a SQLite file, written by one thread, with one commit for all that came together.

It holds what makes ids safe (reservations, digests, tombstones) and what lists need. Output and exit are in the
spool; what the index says of an end was read there.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rexec_server.core.adoption import Foundling
from rexec_server.core.boot import boot_id
from rexec_server.core.database import Database
from rexec_server.core.errors import StillRunning
from rexec_server.core.execution import Extent, Key, State, final_state
from rexec_server.core.journal import Journal
from rexec_server.core.lived import LivedTime, uptime_ns
from rexec_server.core.record import Record, find_row
from rexec_server.core.reservation import Ceilings, Reservation, Reserved
from rexec_server.core.schema import SCHEMA
from rexec_server.core.spool import ExitRecord

TOMBSTONE_SECONDS = 30 * 86400
# Rows that are forgotten in one transaction: no caller waits for the rest.
FORGOTTEN_AT_ONCE = 5000
# With so many executions a label counts as frequent.
_COUNTED = 1000
_HAS_LABEL = (
    "EXISTS (SELECT 1 FROM label AS other WHERE other.caller = label.caller AND other.name = ? AND other.value = ?"
    " AND other.seq = label.seq)"
)


@dataclass(frozen=True, slots=True)
class Query:
    """Which executions to list: None means any. `before` is the seq that the page begins below."""

    caller: str | None
    page_size: int
    before: int | None = None
    states: Sequence[State] = ()
    labels: tuple[tuple[str, str], ...] = ()
    exclusive_group: str | None = None

    def sql(self) -> tuple[str, list[str | int]]:
        """The statement, and the values that it binds."""
        tables, seq = "execution", "execution.seq"
        where: list[str] = ["execution.delete_time = 0"]
        values: list[str | int] = []
        if self.labels:  # it goes through the executions with the first label, and looks each up among the others'
            tables, seq = "label CROSS JOIN execution ON execution.seq = label.seq", "label.seq"
        for clause, value in (
            (f"{'label' if self.labels else 'execution'}.caller = ?", self.caller),
            (f"{seq} < ?", self.before),
            ("execution.exclusive_group = ?", self.exclusive_group),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        for number, label in enumerate(self.labels):
            where.append(_HAS_LABEL if number else "label.name = ? AND label.value = ?")
            values += label
        if self.states:
            where.append(f"execution.state IN ({','.join('?' * len(self.states))})")
            values += [int(state) for state in self.states]
        # Of the text only our own clauses, above; what the caller gave is bound.
        sql = f"SELECT execution.* FROM {tables} WHERE {' AND '.join(where)} ORDER BY {seq} DESC LIMIT ?"  # noqa: S608
        return sql, [*values, self.page_size]

    def rarest_first(self, db: sqlite3.Connection) -> Query:
        """Return the same query; of its labels the one comes first that the fewest executions have."""
        if len(self.labels) < 2:
            return self
        caller = () if self.caller is None else (self.caller,)
        # Of the text only our own clauses; what the caller gave is bound.
        where = "name = ? AND value = ?" + " AND caller = ?" * len(caller)
        sql = f"SELECT COUNT(*) FROM (SELECT 1 FROM label WHERE {where} LIMIT {_COUNTED})"  # noqa: S608
        counts = {label: db.execute(sql, (*label, *caller)).fetchone()[0] for label in self.labels}
        return replace(self, labels=tuple(sorted(self.labels, key=counts.__getitem__)))


class Index:
    """The index file. Coroutines answer when what they wrote is on disk."""

    def __init__(self, path: str, journal: Journal, uptime: Callable[[], int] = uptime_ns) -> None:
        self._journal = journal
        self._database = Database(path, SCHEMA, before_commit=journal.sync)
        saved = self._database.read("SELECT value FROM meta WHERE name = 'lived'")
        self._lived = LivedTime(boot_id(), saved, uptime)
        self._save_lived()
        self.digest_key = bytes(self._database.read("SELECT value FROM meta WHERE name = 'digest_key'"))

    def close(self) -> None:
        self._save_lived()
        self._database.close()

    def _save_lived(self) -> None:
        text = self._lived.to_text()
        self._database.note(lambda db: db.execute("UPDATE meta SET value = ? WHERE name = 'lived'", (text,)))

    async def reserve(self, reservation: Reservation, ceilings: Ceilings) -> Reserved:
        """Takes the id for this request, once and for all.

        Conflict, TokenUsed, ExecIdUsed, Busy, Exhausted; Unavailable when the journal cannot be written.
        """

        lived = self._lived.now()

        def job(db: sqlite3.Connection) -> Reserved:
            reserved = reservation.make(db, ceilings, lived)
            if not reserved.existed:
                self._journal.accepted(reserved.record.name, reserved.record.execution, reservation.origin)
            return reserved

        return await self._database.do(job)

    async def repeated(self, reservation: Reservation) -> Reserved | None:
        """The execution that this very request made before. Conflict, TokenUsed, ExecIdUsed."""
        return await self._database.do(reservation.existing)

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
        self._database.note(_ending(name, record, extent, pid, start_time, expire_time, self._lived.now()))

    async def record_ended(
        self, name: str, record: ExitRecord, extent: Extent, pid: int, start_time: int, expire_time: int
    ) -> None:
        """An end that the spool does not know of. Unavailable."""
        await self._database.do(_ending(name, record, extent, pid, start_time, expire_time, self._lived.now()))

    async def get(self, key: Key) -> Record | None:
        def job(db: sqlite3.Connection) -> Record | None:
            row = find_row(db, key)
            return Record.from_row(row) if row and not row["delete_time"] else None

        return await self._database.do(job)

    async def unfinished(self) -> list[Record]:
        return await self._database.do(
            lambda db: [Record.from_row(row) for row in db.execute("SELECT * FROM execution WHERE state < 3")]
        )

    async def names(self) -> set[str]:
        """Return the names of all executions, also of those that are deleted."""
        return await self._database.do(lambda db: {row["name"] for row in db.execute("SELECT name FROM execution")})

    async def adopt(self, found: Sequence[Foundling]) -> int:
        """Makes known what was found in the spool. Returns how many of them are new."""
        return await self._database.do(lambda db: sum(one.insert(db) for one in found))

    async def counts(self) -> dict[State, int]:
        """How many executions are in each state; those that are forgotten are in none."""
        sql = """
            SELECT state, COUNT(*) FROM execution WHERE state < 3 GROUP BY state UNION ALL
            SELECT state, COUNT(*) FROM execution INDEXED BY execution_ended
            WHERE state >= 3 AND delete_time = 0 GROUP BY state"""
        found = await self._database.look(lambda db: db.execute(sql).fetchall())
        return {State(state): count for state, count in found}

    async def ping(self) -> bool:
        """True, when it answers."""
        return await self._database.do(lambda db: db.execute("SELECT 1").fetchone() is not None)

    async def forgotten(self) -> set[str]:
        """Names of the tombstones: the spool should not have their directories any more."""
        return await self._database.do(
            lambda db: {row["name"] for row in db.execute("SELECT name FROM execution WHERE delete_time > 0")}
        )

    async def page(self, query: Query) -> list[Record]:
        """Return a page, newest first. Exhausted when it takes too long to find."""

        def job(db: sqlite3.Connection) -> list[Record]:
            return [Record.from_row(row) for row in db.execute(*query.rarest_first(db).sql())]

        return await self._database.look(job)

    async def delete(self, name: str, now: int) -> bool:
        """Makes an ended execution a tombstone. False when it was one already; StillRunning when it has not ended."""
        lived = self._lived.now()

        def job(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT exec_id, state FROM execution WHERE name=? AND delete_time=0", (name,)).fetchone()
            if row is None:
                return False
            if row["state"] < State.SUCCEEDED:
                raise StillRunning(row["exec_id"])
            db.execute(
                "UPDATE execution SET delete_time=?, delete_lived=?, request='{}', exit=NULL, extent=NULL, kept_bytes=0"
                " WHERE name=?",
                (now, lived, name),
            )
            return True

        return await self._database.do(job)

    async def expired(self) -> list[Record]:
        """Ended executions whose time is over; the rest of them next time."""
        if self._lived.is_due():
            self._save_lived()
        now = self._lived.now()
        sql = "SELECT * FROM execution WHERE state >= 3 AND delete_time = 0 AND expire_lived <= ? LIMIT 1000"
        return await self._database.look(lambda db: [Record.from_row(row) for row in db.execute(sql, (now,))])

    async def excess(self, max_count: int, max_bytes: int) -> list[Record]:
        """The oldest of the ended executions, as far as they are too many, or keep too much. Never a live one."""
        total = """
            SELECT COUNT(*), TOTAL(kept_bytes) FROM execution INDEXED BY execution_ended
            WHERE state >= 3 AND delete_time = 0"""
        oldest = "SELECT * FROM execution WHERE state >= 3 AND delete_time = 0 ORDER BY end_lived, seq LIMIT ?"

        def job(db: sqlite3.Connection) -> list[Record]:
            count, size = db.execute(total).fetchone()
            found: list[Record] = []
            if count <= max_count and size <= max_bytes:
                return found
            for row in db.execute(oldest, (1000,)):
                if count <= max_count and size <= max_bytes:
                    break
                found.append(Record.from_row(row))
                count, size = count - 1, size - row["kept_bytes"]
            return found

        return await self._database.look(job)

    def drop_old_tombstones(self) -> None:
        before = self._lived.now() - TOMBSTONE_SECONDS * 10**9
        found = "SELECT seq FROM execution WHERE delete_time > 0 AND delete_lived < ? LIMIT ?"
        self._database.note(
            lambda db: db.execute(f"DELETE FROM execution WHERE seq IN ({found})", (before, FORGOTTEN_AT_ONCE))  # noqa: S608
        )

    def drop_expired_tokens(self, now: int) -> None:
        """Drop those that are not taken any more, used or not: also if the wall clock is set back again."""
        found = "SELECT rowid FROM used_token WHERE expire_time < ? AND expire_lived < ? LIMIT ?"
        values = (now, self._lived.now(), FORGOTTEN_AT_ONCE)
        self._database.note(
            lambda db: db.execute(f"DELETE FROM used_token WHERE rowid IN ({found})", values)  # noqa: S608
        )


def now_ns() -> int:
    return time.time_ns()


def _ending(
    name: str, record: ExitRecord, extent: Extent, pid: int, start_time: int, expire_time: int, lived: int
) -> Callable[[sqlite3.Connection], object]:
    values = (
        final_state(record),
        pid,
        start_time,
        record.end_time,
        expire_time,
        lived,
        lived + max(0, expire_time - record.end_time),
        record.to_bytes(),
        json.dumps(extent),
        extent.kept_bytes,
        name,
    )
    return lambda db: db.execute(
        "UPDATE execution SET state=?, pid=?, start_time=?, end_time=?, expire_time=?, end_lived=?,"
        " expire_lived=?, exit=?, extent=?, kept_bytes=? WHERE name=? AND state < 3",
        values,
    )
