"""Reading files that decide who may do what: only such as nobody else could have changed, or read."""

from __future__ import annotations

import os
import stat


class PolicyError(Exception):
    """A file that says who may do what cannot be used; the message says in one line which, and what to do."""


def read_trusted(path: str) -> bytes:
    """A file that only we or root can write. PolicyError."""
    return _read(path, stat.S_IWGRP | stat.S_IWOTH, "written")


def read_private(path: str) -> bytes:
    """A file that only we or root can write, and nobody else can read. PolicyError.

    Our own group may read it where it is root's: so the server's keys can be root's own file.
    """
    return _read(path, stat.S_IRWXG | stat.S_IRWXO, "read")


def _read(path: str, forbidden: int, how: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PolicyError(f"cannot read {path}: {error.strerror}") from error
    try:
        _check(path, os.fstat(fd), forbidden, how)
        with open(fd, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise PolicyError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _check(path: str, status: os.stat_result, forbidden: int, how: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PolicyError(f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise PolicyError(f"{path} belongs to uid {status.st_uid}; it must be ours (uid {os.geteuid()}) or root's")
    if status.st_uid == 0 and status.st_gid == os.getegid():
        forbidden &= ~stat.S_IRGRP
    if status.st_mode & forbidden:
        raise PolicyError(f"{path} can be {how} by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go= {path}")


def check_socket_directory(path: str) -> None:
    """That nobody else can put another socket in place of the one at `path`. PolicyError."""
    directory = os.path.dirname(os.path.realpath(path))
    try:
        found = [(name, os.stat(name)) for name in (directory, *_ancestors(directory))]
    except OSError as error:
        raise PolicyError(f"cannot listen on unix:{path}: {directory}: {error.strerror}") from error
    for name, status in found:
        # Above it, a sticky directory of root's, as /tmp is, will do: nobody can rename there what is another's.
        sticky = name != directory and status.st_mode & stat.S_ISVTX and status.st_uid == 0
        if status.st_uid not in (0, os.geteuid()):
            raise PolicyError(
                f"cannot listen on unix:{path}: {name} belongs to uid {status.st_uid}; it must be ours or root's"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            raise PolicyError(f"cannot listen on unix:{path}: others can write in {name}; chmod go-w {name}")


def _ancestors(directory: str) -> list[str]:
    found = []
    while directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
        found.append(directory)
    return found
