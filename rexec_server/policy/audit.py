"""The audit: who did what, written down before it happens. What cannot be written down is not done."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from rexec_server.core.errors import Unavailable
from rexec_server.core.execution import Execution
from rexec_server.core.origin import Origin
from rexec_server.policy import audit_line
from rexec_server.policy.audit_file import AuditFile
from rexec_server.policy.audit_line import AuditLine
from rexec_server.policy.caller import Caller
from rexec_server.policy.journald import SOCKET, Journald
from rexec_server.policy.rate import Buckets, Rate

_log = logging.getLogger(__name__)

# How long a start waits for a journal whose queue is full.
PATIENCE_SECONDS = 2.0
# Ends that could not be written yet, and are as soon as something can.
MOST_OWED = 10_000
# What anybody can cause at will must not fill the disk: of each caller so much, the rest is counted.
NOISY = frozenset({"denied", "unauthenticated"})
NOISE = Rate(60, 60)


class Sink(Protocol):
    """Where lines go. Each method raises OSError."""

    def write(self, line: AuditLine) -> None:
        """BlockingIOError: later it may take it."""

    def wait(self, seconds: float) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Audit:
    """Implements core's Journal, and policy's Recorder. Any thread may call."""

    def __init__(self, open_sink: Callable[[], Sink]) -> None:
        """PolicyError."""
        self._open_sink = open_sink
        self._sink = open_sink()
        # Whoever holds _syncing keeps the sink from being closed. Nobody holds _writing while a disk is waited for, as
        # the event loop takes it. Who takes both takes _syncing first.
        self._syncing, self._writing = threading.Lock(), threading.Lock()
        self._dirty = False  # something was accepted since the last sync
        self._lost_sync = False  # what was accepted went to a file that could not be synced
        self._owed: deque[AuditLine] = deque()
        self._missed = 0
        self._failing = self._closed = False
        self._noise = Buckets(NOISE)
        self._suppressed = 0

    @classmethod
    def open(cls, where: str) -> Audit:
        """`where` is a file's path, "journald", or "journald:" and the path of its socket. PolicyError."""
        kind, _, path = where.partition(":")
        if kind == "journald":
            return cls(lambda: Journald(path or SOCKET))
        return cls(lambda: AuditFile(where))

    def accepted(self, name: str, execution: Execution, origin: Origin) -> None:
        """Writes it down. Unavailable when that cannot be done, after PATIENCE_SECONDS at most."""
        line, deadline = audit_line.accepted(name, execution, origin), time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self._writing:
                    self._append(line)
                    self._dirty = True
                return
            except OSError as error:
                left = deadline - time.monotonic()
                if not isinstance(error, BlockingIOError) or left <= 0:
                    raise _unavailable(error) from error
                self._sink.wait(left)

    def sync(self) -> None:
        """Returns when all that was accepted is on disk. Unavailable: then none of it may be started."""
        with self._syncing:
            dirty, self._dirty = self._dirty, False
            lost, self._lost_sync = self._lost_sync, False
            if lost:
                raise Unavailable("the audit log cannot be written: its old file could not be synced")
            if dirty:
                try:
                    self._sink.sync()
                except OSError as error:
                    raise _unavailable(error) from error

    def finished(self, name: str, execution: Execution) -> None:
        """Writes it down; what cannot be written now is owed, and written as soon as anything can."""
        self._write_or_owe(audit_line.finished(name, execution), owe=True)

    def event(self, name: str, caller: Caller | None, **facts: object) -> None:
        """Writes down what was not a start or an end. Never fails; refusals beyond NOISE are counted only."""
        if name in NOISY:
            with self._writing:
                if self._noise.take(f"{name} {caller.name if caller else ''}"):
                    self._suppressed += 1
                    return
                suppressed, self._suppressed = self._suppressed, 0
            facts |= {"suppressed": suppressed or None}
        self._write_or_owe(audit_line.event(name, caller, facts), owe=False)

    def reopen(self) -> None:
        """Goes on in a new file, where the old one was renamed. PolicyError: then it goes on as it was."""
        new = self._open_sink()
        with self._syncing:
            if self._closed:
                new.close()
                return
            with self._writing:
                old, self._sink = self._sink, new
            try:
                old.sync()
            except OSError as error:
                _log.error("the old audit log could not be synced: %s", error)
                self._lost_sync = self._dirty
            finally:
                old.close()

    def close(self) -> None:
        with self._syncing, self._writing:
            self._closed = True
            if self._owed or self._missed:
                _log.error("%d lines of the audit log are lost", len(self._owed) + self._missed)
            try:
                self._sink.sync()
            except OSError as error:
                _log.error("the audit log could not be synced: %s", error)
            finally:
                self._sink.close()

    def _write_or_owe(self, line: AuditLine, *, owe: bool) -> None:
        with self._writing:
            try:
                self._append(line)
            except OSError:
                if owe and len(self._owed) < MOST_OWED:
                    self._owed.append(line)
                else:
                    self._missed += 1

    def _append(self, line: AuditLine) -> None:
        """Writes a line after those that are owed. OSError, which the server's log is told of once."""
        try:
            while self._owed:
                self._sink.write(self._owed[0])
                self._owed.popleft()
            if self._missed:
                self._sink.write(audit_line.event("missed", None, {"lines": self._missed}))
                self._missed = 0
            self._sink.write(line)
        except OSError as error:
            if not self._failing and not isinstance(error, BlockingIOError):
                _log.error("the audit log cannot be written, so nothing is started: %s", error)
                self._failing = True
            raise
        if self._failing:
            _log.warning("the audit log can be written again")
            self._failing = False


def _unavailable(error: OSError) -> Unavailable:
    return Unavailable(f"the audit log cannot be written: {error.strerror}")
