"""The audit in a file: whole lines at its end, and nothing else ever."""

from __future__ import annotations

import os
import stat

from rexec_server.policy.audit_line import AuditLine
from rexec_server.policy.files import PolicyError

# Others may be let in to read it, by its group. None of them may write.
_MODE = 0o640
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY


class AuditFile:
    """An open file. Its methods raise OSError; one thread at a time may write."""

    def __init__(self, path: str) -> None:
        """PolicyError when it cannot be opened for writing, or others could write in it."""
        try:
            self._fd, created = _open(path)
        except OSError as error:
            why = "it is a symbolic link" if os.path.islink(path) else error.strerror
            raise PolicyError(f"cannot write the audit {path}: {why}") from error
        try:
            _check(path, os.fstat(self._fd))
            if created:
                os.fchmod(self._fd, _MODE)  # whatever our umask is
                _sync_directory(path)
            self._torn = _ends_torn(self._fd)
        except (OSError, PolicyError) as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                raise PolicyError(f"cannot write the audit {path}: {error.strerror}") from error
            raise

    def write(self, line: AuditLine) -> None:
        # What a full disk cut off stays by itself: the next line begins on a line of its own.
        data = memoryview(b"\n" * self._torn + line.text.encode() + b"\n")
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self._torn = self._torn if written == 0 else data[written - 1] != ord("\n")
            raise
        self._torn = False

    def wait(self, seconds: float) -> None:
        """Nothing: a file takes a line at once, or never."""

    def sync(self) -> None:
        """Returns when what was written is on disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1  # whoever is late writes in nobody else's file


def _open(path: str) -> tuple[int, bool]:
    """The descriptor, and whether the file is new."""
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        return os.open(path, _FLAGS), False


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PolicyError(f"cannot write the audit {path}: it is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise PolicyError(f"the audit {path} belongs to uid {status.st_uid}; it must be ours or root's")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise PolicyError(f"the audit {path} can be written by others (mode {mode:04o}); chmod go-w {path}")


def _ends_torn(fd: int) -> bool:
    """Whether whoever wrote last was stopped in the middle of a line."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _sync_directory(path: str) -> None:
    """A new file is on disk when its name is."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
