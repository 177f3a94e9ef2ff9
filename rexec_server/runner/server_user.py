"""The user of a server that is not root, beside a runner that is: it reads what the runner makes, and nobody else."""

from __future__ import annotations

import errno
import os
import pwd
from typing import NamedTuple

from rexec_server.core.about import About
from rexec_server.core.durable import make_directories
from rexec_server.core.spool import SPOOL


class ServerUser(NamedTuple):
    """Whose server a runner serves."""

    uid: int
    gid: int

    @classmethod
    def find(cls, name: str) -> ServerUser:
        """By name or number. KeyError when there is no such user."""
        entry = pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
        return cls(entry.pw_uid, entry.pw_gid)

    def share_group(self) -> None:
        """Makes its primary group ours, so that what we make is that group's. OSError unless we are root."""
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)


def open_state_dir(path: str, server: ServerUser | None, *, dev: bool) -> int:
    """Opens the state directory, and makes what is not there: for the server, with a spool that is ours.

    OSError; Newer when the spool was written by a newer rexec.
    """
    make_directories(os.path.dirname(os.path.abspath(path)))
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # the server came first, or our predecessor
    else:
        if server:
            os.chown(path, server.uid, server.gid)
        make_directories(path)
    state_dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if not dev:
        _check_owner(state_dir, server)
    _make_spool(state_dir, server)
    return state_dir


def _check_owner(state_dir: int, server: ServerUser | None) -> None:
    """Nobody else may put anything into it: a spool, say, that leads elsewhere. OSError."""
    status = os.fstat(state_dir)
    if status.st_uid not in (os.geteuid(), *([server.uid] if server else [])):
        raise PermissionError(errno.EPERM, f"it belongs to uid {status.st_uid}, who is neither we nor the server")
    if status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others can write in it; chmod go-w it")


def _make_spool(state_dir: int, server: ServerUser | None) -> None:
    try:
        os.mkdir(SPOOL, 0o750, dir_fd=state_dir)
    except FileExistsError:
        pass
    # The directory around it is the server's: a name in it may be anything, and is not followed.
    spool = os.open(SPOOL, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state_dir)
    try:
        About.read(spool)
        os.fsync(state_dir)  # before anything is started: an execution is on disk when all names above it are
        if server:
            os.fchown(spool, os.geteuid(), server.gid)
            os.fchmod(spool, 0o750)
    finally:
        os.close(spool)
