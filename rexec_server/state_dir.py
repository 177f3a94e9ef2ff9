"""The state directory belongs to one server at a time."""

from __future__ import annotations

import fcntl
import os


class StartRefused(Exception):
    """The server cannot start; the message says why, in one line."""


def claim(state_dir: str) -> int:
    """Makes the directory, and takes it for the life of this process. Returns the lock. StartRefused.

    The lock says who serves; the pid in `server.pid` is for people.
    """
    os.umask(0o077)
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        lock = os.open(f"{state_dir}/server.pid", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise StartRefused(f"cannot use the state directory {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode().strip()
        os.close(lock)
        raise StartRefused(f"another rexec-server (pid {pid}) serves {state_dir}") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
