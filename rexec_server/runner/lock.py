"""The lock of an execution's directory: the right to write in it, the proof of life, and the bell for watchers."""

from __future__ import annotations

import fcntl
import os

from rexec_server.core.spool import LOCK


def take_lock(directory: int) -> int | None:
    """Takes the right to write, held until this process ends; None when another has it."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def ring(lock: int) -> None:
    """Wakes who watches the execution. A write of its own, as inotify does not tell of splice before Linux 6.5."""
    try:
        os.pwrite(lock, b"\n", 0)
    except OSError:
        pass  # a full disk; watchers look each second in any case
