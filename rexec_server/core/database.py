"""A SQLite file with one writer thread: jobs that come together share a commit.

An fsync costs more than all else about a reservation; a hundred that wait for the same one cost hardly more. What only
looks, and may take long, has a thread and a connection of its own. No job takes longer than its limit.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from rexec_server.core.about import Newer
from rexec_server.core.durable import sync_directory
from rexec_server.core.errors import Exhausted, Unavailable

# Notes that nobody waits for are committed with the next job, or after this long, or when there are so many.
NOTES_SECONDS = 0.05
MAX_NOTES = 256
# A look is given up after this long, and what is to be written after the other: others wait for their turn.
LOOK_SECONDS = 2.0
WRITE_SECONDS = 10.0
# Steps of SQLite's machine between two looks at the clock: about a millisecond.
_STEPS = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to be done by the index's thread, and who is told of it."""

    run: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    awaited: bool


class Database:
    """The file and its thread. Unavailable when the file is of a newer version, or cannot be used.

    schema: the steps from one version to the next; a new file takes all, an older one those that it has not.
    before_commit: called in the thread before each commit with jobs; its Unavailable fails them all.
    look_seconds: a look that takes longer is given up.
    """

    def __init__(
        self,
        path: str,
        schema: Sequence[str],
        before_commit: Callable[[], None],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        if not os.path.exists(path):
            _make(path, schema)
        self._connection = _open(path, schema)
        self._path, self._file = path, os.stat(path)
        self._limit = _Limit(self._connection, WRITE_SECONDS)
        self._reading = _connect(path)
        self._reading.execute("PRAGMA query_only=1")
        self._reading_limit = _Limit(self._reading, look_seconds)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="index-reader")
        self._before_commit = before_commit
        self._thread = threading.Thread(target=self._work, name="index", daemon=True)
        self._thread.start()

    def read(self, sql: str) -> Any:
        """One value, read now: only before anything else is under way."""
        return self._connection.execute(sql).fetchone()[0]

    def close(self) -> None:
        """Returns when all that was submitted is done."""
        self._reader.shutdown(cancel_futures=True)
        self._reading.close()
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    async def do(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Does a job, and answers when it is on disk. Its RexecError, or Unavailable when SQLite failed."""
        return await asyncio.wrap_future(self._submit(run, awaited=True))

    async def look(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Does a job that writes nothing, beside those that do; it sees all that was submitted before it.

        Its RexecError; Exhausted when it takes too long; Unavailable when SQLite failed.
        """
        await self.do(lambda _: None)  # notes that wait are on disk then
        return await asyncio.wrap_future(self._reader.submit(self._look, run))

    def _look(self, run: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._reading_limit:
                return run(self._reading)
        except sqlite3.Error as error:
            if self._reading_limit.over():
                seconds = f"{self._reading_limit.seconds:g} s"
                what = f"looking through the executions took more than {seconds}; ask for fewer, or with other labels"
                raise Exhausted("index", what) from error
            raise Unavailable(f"the index failed: {error}") from error

    def note(self, run: Callable[[sqlite3.Connection], Any]) -> None:
        """Something that the spool says too: nobody waits for it, but all that is asked later sees it."""
        self._submit(run, awaited=False)

    def _submit(self, run: Callable[[sqlite3.Connection], T], awaited: bool) -> Future[T]:
        job = _Job(run, Future(), awaited)
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        """Does all waiting jobs in one transaction. Notes wait a moment, for a job whose commit takes them along."""
        notes: list[_Job] = []
        closing = False
        while not closing:
            batch = self._next_batch(NOTES_SECONDS if notes else None)
            closing = None in batch
            jobs = notes + [job for job in batch if job is not None]
            if batch and not closing and len(jobs) < MAX_NOTES and not any(job.awaited for job in jobs):
                notes = jobs
            else:
                notes = self._commit(jobs)

    def _next_batch(self, timeout: float | None) -> list[_Job | None]:
        """All that waits; nothing when nothing came within `timeout` seconds."""
        batch: list[_Job | None] = []
        try:
            batch.append(self._jobs.get(timeout=timeout))
            while True:
                batch.append(self._jobs.get_nowait())
        except queue.Empty:
            return batch

    def _commit(self, jobs: list[_Job]) -> list[_Job]:
        """Commits, then answers. Returns the notes that are to be tried again: a full disk must not lose an end."""
        # A job whose caller has gone before its turn is not done; from here on it cannot be cancelled any more.
        jobs = [job for job in jobs if not job.awaited or job.future.set_running_or_notify_cancel()]
        try:
            self._check_file()
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._try(job) for job in jobs]
            self._before_commit()
            self._connection.execute("COMMIT")
        except (sqlite3.Error, Unavailable) as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            why = error.message if isinstance(error, Unavailable) else f"the index cannot be written: {error}"
            for job in jobs:
                if job.awaited:
                    job.future.set_exception(Unavailable(why))
            return [job for job in jobs if not job.awaited]
        for job, (result, problem) in zip(jobs, outcomes, strict=True):
            if job.awaited and problem is not None:
                job.future.set_exception(problem)
            elif job.awaited:
                job.future.set_result(result)
        return []

    def _check_file(self) -> None:
        """Raise Unavailable when the file has lost its name: what would be written to it is gone with this process."""
        try:
            if os.path.samestat(os.stat(self._path), self._file):
                return
        except FileNotFoundError:
            pass
        raise Unavailable(f"the index {self._path} was removed or replaced: put it back and restart rexec-server")

    def _try(self, job: _Job) -> tuple[Any, Exception | None]:
        """Whatever is wrong with a job is its caller's to know, and must not end the thread that all depend on."""
        self._connection.execute("SAVEPOINT job")
        try:
            with self._limit if job.awaited else nullcontext():  # a note would only be tried again
                result = job.run(self._connection)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # so bad that SQLite has rolled back everybody's work
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, Unavailable(f"the index failed: {error}") if isinstance(error, sqlite3.Error) else error
        self._connection.execute("RELEASE job")
        return result, None


def _make(path: str, schema: Sequence[str]) -> None:
    """Make a new file, which gets its name when it is whole: one without a table is not new, but was damaged."""
    draft = f"{path}.new"
    # A log of one that was removed is not to be taken for the new one's.
    for name in (draft, f"{draft}-wal", f"{draft}-shm", f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError):
            os.unlink(name)
    _open(draft, schema).close()
    os.rename(draft, path)
    sync_directory(os.path.dirname(path))


class _Limit:
    """The limit on the time that the statements of a connection take, together, during a block."""

    def __init__(self, connection: sqlite3.Connection, seconds: float) -> None:
        self.seconds = seconds
        self._connection = connection
        self._until = 0.0

    def over(self) -> bool:
        return time.monotonic() >= self._until

    def __enter__(self) -> None:
        self._until = time.monotonic() + self.seconds
        self._connection.set_progress_handler(self.over, _STEPS)

    def __exit__(self, *_: object) -> None:
        self._connection.set_progress_handler(None, _STEPS)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def _open(path: str, schema: Sequence[str]) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(schema):
            raise Newer(path, version, len(schema))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a reservation that was answered survives a power cut
        for number, step in enumerate(schema[version:], version + 1):
            connection.executescript(f"BEGIN; {step} PRAGMA user_version={number}; COMMIT;")
        if version < len(schema):
            # Into the file itself: there its version can be read without opening it as a database.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except Newer as newer:
        connection.close()
        raise Unavailable(str(newer)) from newer
    except sqlite3.Error as error:
        connection.close()
        raise Unavailable(f"the index {path} cannot be used: {error}") from error
    return connection
