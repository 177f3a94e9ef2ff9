"""The lock of an execution's directory: the right to write in it, the proof of life, and the bell for watchers."""

from __future__ import annotations

import fcntl
import os

from rexec_server.core.spool import FLOOR_FORMAT, FLOOR_POSITION, LOCK, Waiting, open_regular


def open_lock(directory: int) -> int:
    return open_regular(LOCK, os.O_RDWR | os.O_CREAT, directory)


def hold_lock(lock: int) -> bool:
    """Takes it if it is free; whether it was."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_lock(directory: int) -> int | None:
    """Takes the right to write, held until this process ends; None when another has it."""
    lock = open_lock(directory)
    if hold_lock(lock):
        return lock
    os.close(lock)
    return None


def ring(lock: int, waiting: Waiting = Waiting.NOTHING) -> None:
    """Wakes who watches the execution, and says why it waits.

    A write of its own, as inotify does not tell of splice before Linux 6.5.
    """
    try:
        os.pwrite(lock, waiting.value, 0)
    except OSError:
        pass  # a full disk; watchers look each second in any case


def note_floor(lock: int, floor: int) -> None:
    """Keeps the floor for a successor, and for a server that asks which output is held."""
    try:
        os.pwrite(lock, FLOOR_FORMAT.pack(floor), FLOOR_POSITION)
    except OSError:
        pass  # a successor then holds more than it must


def noted_floor(lock: int) -> int:
    """Return the floor that a predecessor kept; 0 if there was none."""
    data = os.pread(lock, FLOOR_FORMAT.size, FLOOR_POSITION)
    return int(FLOOR_FORMAT.unpack(data)[0]) if len(data) == FLOOR_FORMAT.size else 0
