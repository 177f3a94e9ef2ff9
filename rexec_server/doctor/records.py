"""Index and spool: whole, of a version that we know, and with nothing in them that nobody looks after."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rexec_server.core.about import ABOUT, SPOOL_VERSION
from rexec_server.core.schema import SCHEMA
from rexec_server.core.spool import LOCK, open_regular
from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject

_SCHEMA_VERSION = len(SCHEMA)
_WAL_BYTES = 64 * 1024 * 1024
# Executions are reserved before they have a directory, and forgotten before it is removed: a young one is no orphan.
_YOUNG_SECONDS = 3600.0


def check_index(subject: Subject) -> Iterator[Finding]:
    if not os.path.exists(subject.index):
        yield ok("index", "none yet; the server makes it")
        return
    try:
        with _reading(subject) as index:
            version = index.execute("PRAGMA user_version").fetchone()[0]
            problem = index.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if version <= _SCHEMA_VERSION and problem == "ok":
                count = index.execute("SELECT COUNT(*) FROM execution").fetchone()[0] if version else 0
    except (sqlite3.Error, OSError) as error:
        version, problem, count = 0, str(error), 0
    if problem != "ok":
        yield fail("index", f"{subject.index} is damaged: {problem}", "stop the server, and put a backup in its place")
    elif version > _SCHEMA_VERSION:
        yield fail(
            "index",
            f"{subject.index} is of a newer rexec (schema {version}; this one knows {_SCHEMA_VERSION})",
            "start that version again, or name another --state-dir",
        )
    else:
        yield ok("index", f"schema {version}, whole, {count} entries")


def check_spool(subject: Subject) -> Iterator[Finding]:
    try:
        with open(open_regular(f"{subject.spool}/{ABOUT}")) as file:
            version = int(json.load(file)["version"])
    except FileNotFoundError:
        version = SPOOL_VERSION  # the first had no such file
    except (OSError, ValueError, TypeError, KeyError) as error:
        yield warn(
            "spool", f"{subject.spool}/{ABOUT} cannot be read: {error}", "restart the runner, which writes it anew"
        )
        return
    if version > SPOOL_VERSION:
        yield fail(
            "spool",
            f"it is of a newer rexec (version {version}; this one knows {SPOOL_VERSION})",
            "start that version again, or name another --state-dir",
        )
    else:
        yield ok("spool", f"version {version}")


def check_leftovers(subject: Subject) -> Iterator[Finding]:
    """What nobody will ever remove, or somebody should look at."""
    found = [*_left_behind(subject)]
    yield from found or [ok("leftovers", "none")]


def _left_behind(subject: Subject) -> Iterator[Finding]:
    directories = _directories(subject)
    crashed = [name for name in directories if os.path.exists(f"{subject.spool}/{name}/shim.error")]
    if crashed:
        yield warn(
            "leftovers",
            f"{len(crashed)} shims failed: {subject.spool}/{crashed[0]}/shim.error says how",
            "report it; the file goes with its execution",
        )
    known = _known(subject)
    strange = [name for name in directories if not _is_execution(subject, name)]
    unknown = [name for name in directories if name not in strange and name not in known]
    for names, what in ((strange, "are no executions"), (unknown, "are of executions that the index does not know")):
        if names:
            yield warn(
                "leftovers",
                f"{len(names)} directories in {subject.spool} {what}, such as {names[0]}",
                "look, and remove them by hand when the server and the runner are stopped",
            )
    try:
        size = os.stat(f"{subject.index}-wal").st_size
    except OSError:
        return
    if size > _WAL_BYTES and subject.server_pid is None:
        yield warn("leftovers", f"{subject.index}-wal has {size} bytes", "start the server once: it takes them in")


def _is_execution(subject: Subject, name: str) -> bool:
    """Else it is none, or one that was never made to its end."""
    return not name.startswith(".") and os.path.exists(f"{subject.spool}/{name}/{LOCK}")


def _directories(subject: Subject) -> list[str]:
    """Of executions, but those that are young."""
    try:
        entries = list(os.scandir(subject.spool))
    except OSError:
        return []
    old = subject.host.now - _YOUNG_SECONDS
    return sorted(entry.name for entry in entries if entry.is_dir() and entry.stat().st_mtime < old)


def _known(subject: Subject) -> set[str]:
    try:
        with _reading(subject) as index:
            return {name for (name,) in index.execute("SELECT name FROM execution")}
    except (sqlite3.Error, OSError):
        return set(_directories(subject))  # what is wrong with the index is said elsewhere


@contextmanager
def _reading(subject: Subject) -> Iterator[sqlite3.Connection]:
    """The index, read beside its server; or, when there is none, a copy, since even reading may write beside it."""
    if subject.server_pid is not None:
        with closing(sqlite3.connect(f"{Path(subject.index).as_uri()}?mode=ro", uri=True, timeout=10)) as index:
            yield index
        return
    with tempfile.TemporaryDirectory(prefix="rexec-doctor-") as directory:
        for suffix in ("", "-wal"):
            if os.path.exists(subject.index + suffix):
                shutil.copy(subject.index + suffix, f"{directory}/index.sqlite{suffix}")
        with closing(sqlite3.connect(f"{directory}/index.sqlite")) as index:
            yield index
