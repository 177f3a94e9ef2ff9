"""One row of the index, as a value."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from rexec_server.core.execution import Execution, Extent, Key, Request, State
from rexec_server.core.spool import ExitRecord


@dataclass(frozen=True, slots=True)
class Record:
    """One execution as the index knows it."""

    seq: int
    name: str
    execution: Execution
    boot_id: str = ""  # of the machine, when it was reserved; empty: not known
    runner: str = ""  # the instance that it was reserved for; empty: not known

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Record:
        request = json.loads(row["request"])
        request |= {
            "arguments": tuple(request["arguments"]),
            "environment_names": tuple(request["environment_names"]),
            "granted": tuple(request.get("granted", ())),
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
        return cls(row["seq"], row["name"], execution, row["boot_id"], row["runner"])


def _extent(text: str | None) -> Extent:
    if not text:
        return Extent()
    start, end, produced, dropped = json.loads(text)
    return Extent(start, end, tuple(produced), tuple(dropped))


def find_row(db: sqlite3.Connection, key: Key) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM execution WHERE caller=? AND exec_id=?", key).fetchone()
    return row
