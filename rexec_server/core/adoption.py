"""Executions that are in the spool and that the index does not know: an index from a backup, or none at all.

The runner keeps what was reserved beside each execution, so that its id stays used and its result can be found.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from rexec_server.core.execution import Key, Request, State
from rexec_server.core.launch import Overflow
from rexec_server.core.reservation import TOKEN_GRACE_NS, Reservation
from rexec_server.core.spool import REQUEST, STDIN_STATE, read_start, read_whole


@dataclass(frozen=True, slots=True)
class Foundling:
    """The caller and the command of an execution, as its spool says."""

    name: str
    key: Key
    digest: bytes
    create_time: int = 0
    boot_id: str = ""
    request: Request = Request()
    token_id: str = ""
    token_expiry: int = 0

    def insert(self, db: sqlite3.Connection) -> bool:
        """Makes it known as one that has not ended; its records say more. Returns False when the id is taken."""
        made = db.execute(
            "INSERT OR IGNORE INTO execution (caller, exec_id, name, digest, state, request, exclusive_group,"
            " create_time, boot_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *self.key,
                self.name,
                self.digest,
                State.STARTING,
                json.dumps(asdict(self.request)),
                self.request.exclusive_group,
                self.create_time,
                self.boot_id,
            ),
        )
        if made.rowcount and self.token_id:
            db.execute(
                "INSERT OR IGNORE INTO used_token (caller, token_id, exec_id, digest, expire_time)"
                " VALUES (?, ?, ?, ?, ?)",
                (self.key.caller, self.token_id, self.key.exec_id, self.digest, self.token_expiry + TOKEN_GRACE_NS),
            )
        return made.rowcount > 0


def described(reservation: Reservation) -> dict[str, Any]:
    """Return what the runner is to keep: no environment value, no input, and no token."""
    return {
        "caller": reservation.key.caller,
        "exec_id": reservation.key.exec_id,
        "digest": reservation.digest.hex(),
        "create_time": reservation.now,
        "boot_id": reservation.boot_id,
        "request": asdict(reservation.request),
        "token_id": reservation.origin.token_id,
        "token_expiry": reservation.origin.token_expiry,
    }


def find(spool: str, names: Iterable[str], retention: float) -> list[Foundling]:
    """Reads what is kept of these executions, oldest first. One of which nothing can be read is left out.

    retention: for how many seconds one is kept of which it is not known.
    """
    found = []
    for name in names:
        try:
            directory = os.open(f"{spool}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            foundling = _read(name, directory, retention)
        except OSError:
            foundling = None
        finally:
            os.close(directory)
        if foundling:
            found.append(foundling)
    return sorted(found, key=lambda one: one.create_time)


def _read(name: str, directory: int, retention: float) -> Foundling | None:
    """Read the request, or else the start record, which names the execution only."""
    try:
        said = json.loads(read_whole(REQUEST, directory) or b"")
        known = {field.name for field in fields(Request)}
        request = {key: value for key, value in said["request"].items() if key in known}
        lists = {key: tuple(value) for key, value in request.items() if isinstance(value, list)}
        return Foundling(
            name,
            Key(str(said["caller"]), str(said["exec_id"])),
            bytes.fromhex(said["digest"]),
            int(said["create_time"]),
            str(said["boot_id"]),
            Request(**request | lists),
            str(said["token_id"]),
            int(said["token_expiry"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return _read_start(name, directory, retention)


def _read_start(name: str, directory: int, retention: float) -> Foundling | None:
    try:
        start = read_start(directory)
        if start is None or not start.exec_id:
            return None
        key = Key(start.caller, start.exec_id)
        request = Request(
            stdin_open=os.access(STDIN_STATE, os.F_OK, dir_fd=directory),
            retention=retention,
            output_bytes=int(start.supervision.get("output_bytes", 0)),
            waits=start.supervision.get("overflow") == Overflow.WAIT,
        )
        return Foundling(name, key, bytes.fromhex(start.digest), start.start_time, start.boot_id, request)
    except (ValueError, TypeError, AttributeError):
        return None
