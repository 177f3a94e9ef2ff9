"""One process per state directory: a lock that is held for life, and in it the holder's pid, for people."""

from __future__ import annotations

import fcntl
import os

# A pid with its newline always fills this, so that one write replaces another: a reader sees a whole pid, or the
# nothing of a file that was made just now.
_WIDTH = 11


class Held(Exception):
    """Another process has it; `pid` says which, as text."""

    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


def hold(path: str, dir_fd: int | None = None) -> int:
    """Takes the file for the life of this process, and writes our pid into it. Returns the lock. Held, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=dir_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, _WIDTH, 0).decode().strip()
        os.close(fd)
        raise Held(pid) from None
    os.pwrite(fd, f"{os.getpid():<{_WIDTH - 1}}\n".encode(), 0)
    os.ftruncate(fd, _WIDTH)
    return fd
