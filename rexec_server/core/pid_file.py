"""One process per state directory: locks that are held for life, and in a file the holder's pid, for people.

A file can lose its name, and another could then be made and locked. So the directory itself is locked too.
"""

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


def hold_directory(directory: int, path: str, dir_fd: int | None = None) -> None:
    """Locks an open directory for the life of this process. Held, with the pid in the file at `path`."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held(_read_pid(path, dir_fd)) from None
    except OSError:
        pass  # a file system that locks files only (NFS)


def restore(path: str, lock: int, dir_fd: int | None = None) -> None:
    """Makes the file anew when its name is gone or leads to another one; `lock` is of that one then. Held, OSError."""
    try:
        if os.path.samestat(os.stat(path, dir_fd=dir_fd, follow_symlinks=False), os.fstat(lock)):
            return
    except FileNotFoundError:
        pass
    anew = hold(path, dir_fd)
    os.dup2(anew, lock, inheritable=False)
    os.close(anew)


def hold(path: str, dir_fd: int | None = None) -> int:
    """Takes the file for the life of this process, and writes our pid into it. Returns the lock. Held, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=dir_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Held(_read_pid(path, dir_fd)) from None
    os.pwrite(fd, f"{os.getpid():<{_WIDTH - 1}}\n".encode(), 0)
    os.ftruncate(fd, _WIDTH)
    return fd


def _read_pid(path: str, dir_fd: int | None) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return "not known"
    try:
        return os.pread(fd, _WIDTH, 0).decode(errors="replace").strip() or "not known"
    finally:
        os.close(fd)
