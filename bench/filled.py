"""A server with many finished executions: one was made for real, and the others are copies of it."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sqlite3
import uuid
from pathlib import Path

from bench.candidates.rexec import RexecServer, client
from bench.verify import expect_output, expect_status
from rexec_server.core import spool

# A file has so many links at most, on some file systems 65,000: then the next copies are of another copy.
LINKS = 10_000


class FilledServer(RexecServer):
    """It stops, is given the copies, and starts again."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory, "--no-gateway")
        with client(self) as opened:
            result = opened.run(["echo", "one of many"], exec_id="copy-0")
            expect_status(result.returncode)
        self.stop()
        self.stop_runner()
        fill(self.state_dir, count)
        self.start()
        with client(self) as opened:  # the last copy is as the first was
            result = opened.attach(f"copy-{count - 1}")
            with result.output() as chunks:
                expect_output(b"".join(chunk.data for chunk in chunks), b"one of many\n")
            expect_status(result.returncode)

    def stop_runner(self) -> None:
        """kill -9, as the next one must be able to start from what is there."""
        pid = self.runner_pid
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)

    def restart(self) -> None:
        """Server and runner anew, as after a restart of the machine."""
        self.stop()
        self.stop_runner()
        self.start()


def fill(state_dir: Path, count: int) -> None:
    """Makes `count` of the one execution in a state directory that nobody uses just now."""
    names = [uuid.uuid4().hex for _ in range(count - 1)]
    with sqlite3.connect(state_dir / "index.sqlite") as db:
        source, *more = db.execute("SELECT name FROM execution").fetchall()
        if more:
            raise ValueError(f"{state_dir} has {len(more) + 1} executions, not one")
        columns = [row[1] for row in db.execute("PRAGMA table_info(execution)")]
        copied = ", ".join(column for column in columns if column not in ("seq", "name", "exec_id"))
        db.executemany(
            f"INSERT INTO execution (name, exec_id, {copied}) SELECT ?, ?, {copied} FROM execution WHERE name = ?",
            ((name, f"copy-{number}", source[0]) for number, name in enumerate(names, 1)),
        )
    db.close()
    _copy(state_dir / spool.SPOOL, source[0], names)


def _copy(directory: Path, source: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if number % LINKS == 0:
            shutil.copytree(directory / source, directory / name)
            source, files = name, os.listdir(directory / name)
        else:
            os.mkdir(directory / name, 0o700)
            for file in files:
                os.link(directory / source / file, directory / name / file)


def wait_until_gone(pid: int) -> None:
    """Until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], 30)
    finally:
        os.close(descriptor)
