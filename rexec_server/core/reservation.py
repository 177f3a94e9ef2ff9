"""Taking an id, once and for all: decided in one transaction of the index, before anything is started."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass

from rexec_server.core.errors import Busy, Conflict, ExecIdUsed, Exhausted, TokenUsed
from rexec_server.core.execution import Key, Request, State
from rexec_server.core.origin import Origin
from rexec_server.core.record import Record, find_row

# Tokens that are remembered at once. Each is kept for minutes, and rates are limited: more is an attack, or a mistake.
MAX_TOKENS = 1_000_000
# What clocks may differ by, twice: nobody takes the token for fresh any more when it is forgotten.
TOKEN_GRACE_NS = 120 * 10**9


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How many executions may run at once; None: as many as may at all. And how many tokens are remembered."""

    all: int
    caller: int | None = None
    rule: int | None = None
    tokens: int = MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Reserved:
    """The outcome: the record, and whether it had been there before."""

    record: Record
    existed: bool


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request for an id. `now` is in nanoseconds since 1970."""

    key: Key
    named: bool  # the caller chose the id; else we did, just now
    name: str  # of its directory in the spool
    digest: bytes
    request: Request
    origin: Origin
    now: int
    boot_id: str = ""  # of the machine; empty: not known, so any other than this
    runner: str = ""  # the instance of the runner that its start is meant for; empty: not known

    def existing(self, db: sqlite3.Connection) -> Reserved | None:
        """The execution that this very request made before. Conflict, ExecIdUsed, TokenUsed."""
        row = self._started_by_token(db) or find_row(db, self.key)
        if row is None:
            return None
        if row["delete_time"]:
            raise ExecIdUsed(row["exec_id"])
        if row["digest"] != self.digest:
            raise Conflict(row["exec_id"])
        return Reserved(Record.from_row(row), existed=True)

    def make(self, db: sqlite3.Connection, ceilings: Ceilings, lived: int) -> Reserved:
        """Takes the id, unless this request had taken it. Busy and Exhausted besides what `existing` raises.

        lived: nanoseconds, by the clock that cannot be set.
        """
        existing = self.existing(db)
        if existing:
            return existing
        self._check_group(db)
        self._check_running(db, ceilings)
        self._use_token(db, ceilings.tokens, lived)
        db.execute(
            "INSERT INTO execution (caller, exec_id, name, digest, state, request, exclusive_group, create_time,"
            " boot_id, runner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *self.key,
                self.name,
                self.digest,
                State.STARTING,
                json.dumps(asdict(self.request)),
                self.request.exclusive_group,
                self.now,
                self.boot_id,
                self.runner,
            ),
        )
        row = find_row(db, self.key)
        assert row is not None
        return Reserved(Record.from_row(row), existed=False)

    def _started_by_token(self, db: sqlite3.Connection) -> sqlite3.Row | None:
        """What this token has started; TokenUsed when that was something else."""
        if not self.origin.token_id:
            return None
        used = db.execute(
            "SELECT exec_id, digest FROM used_token WHERE caller=? AND token_id=?",
            (self.key.caller, self.origin.token_id),
        ).fetchone()
        if used is None:
            return None
        if used["digest"] != self.digest or (self.named and used["exec_id"] != self.key.exec_id):
            raise TokenUsed
        return find_row(db, Key(self.key.caller, used["exec_id"]))

    def _use_token(self, db: sqlite3.Connection, most: int, lived: int) -> None:
        origin = self.origin
        if not origin.token_id:
            return
        until = origin.token_expiry + TOKEN_GRACE_NS
        # Not COUNT(*), which would look at each of them each time; rowids only grow.
        newest, oldest = db.execute("SELECT MAX(rowid), MIN(rowid) FROM used_token").fetchone()
        if newest is not None and newest - oldest + 1 >= most:
            raise Exhausted("used tokens", "too many tokens were used lately to remember another", 10.0)
        db.execute(
            "INSERT INTO used_token (caller, token_id, exec_id, digest, expire_time, expire_lived)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self.key.caller, origin.token_id, self.key.exec_id, self.digest, until, lived + max(0, until - self.now)),
        )

    def _check_group(self, db: sqlite3.Connection) -> None:
        group = self.request.exclusive_group
        if not group:
            return
        running = db.execute(
            "SELECT exec_id FROM execution WHERE caller=? AND exclusive_group=? AND state < 3", (self.key.caller, group)
        ).fetchone()
        if running:
            raise Busy(group, running["exec_id"])

    def _check_running(self, db: sqlite3.Connection, ceilings: Ceilings) -> None:
        _check(db, ceilings.all, "running executions", "", ())
        if ceilings.caller is not None:
            _check(db, ceilings.caller, f"caller {self.key.caller}", " AND caller=?", (self.key.caller,))
        if ceilings.rule is not None:
            rule = self.request.rule
            _check(db, ceilings.rule, f"rule {rule}", " AND json_extract(request, '$.rule')=?", (rule,))


def _check(db: sqlite3.Connection, most: int, subject: str, clause: str, values: tuple[str, ...]) -> None:
    # Of the text only our own clauses; what the caller gave is bound.
    sql = f"SELECT COUNT(*) FROM execution WHERE state < 3{clause}"  # noqa: S608
    (count,) = db.execute(sql, values).fetchone()
    if count >= most:
        raise Exhausted(subject, f"{count} executions run; at most {most} may")
