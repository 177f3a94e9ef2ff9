"""The state directory belongs to one server at a time."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

from rexec_server.core import pid_file
from rexec_server.core.about import About, Newer
from rexec_server.core.durable import make_directories
from rexec_server.core.schema import check_version
from rexec_server.core.spool import SPOOL

SERVER_PID = "server.pid"


class StartRefused(Exception):
    """The server cannot start; the message says why, in one line."""


class Claim(NamedTuple):
    """The right to serve a state directory, for the life of this process."""

    directory: int
    pid_path: str
    lock: int

    def restore(self) -> None:
        """Makes the file with our pid anew when it was removed. Held, OSError."""
        pid_file.restore(self.pid_path, self.lock)


def claim(state_dir: str, *, dev: bool) -> Claim:
    """Makes the directory, and takes it for the life of this process. StartRefused."""
    os.umask(0o077)
    try:
        make_directories(state_dir, 0o700)
        if not dev:
            _check_ours(state_dir)
        _check_versions(state_dir)
        directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pid_path = f"{state_dir}/{SERVER_PID}"
        pid_file.hold_directory(directory, pid_path)
        return Claim(directory, pid_path, pid_file.hold(pid_path))
    except pid_file.Held as other:
        raise StartRefused(f"another rexec-server (pid {other.pid}) serves {state_dir}") from None
    except Newer as newer:
        raise StartRefused(f"cannot use the state directory {state_dir}: {newer}") from newer
    except OSError as error:
        raise StartRefused(f"cannot use the state directory {state_dir}: {error.strerror}") from error


def _check_ours(state_dir: str) -> None:
    """Whoever else could write in it could be our runner, and would be given every command with its secrets."""
    status = os.stat(state_dir)
    if status.st_uid != os.geteuid():
        raise StartRefused(f"the state directory {state_dir} belongs to uid {status.st_uid}, and must be ours")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise StartRefused(f"the state directory {state_dir} can be written by others ({mode:04o}); chmod go-w it")


def _check_versions(state_dir: str) -> None:
    """Before anything in it is touched, and before a runner is started there. Newer, OSError."""
    check_version(f"{state_dir}/index.sqlite")
    with suppress(FileNotFoundError):
        spool = os.open(f"{state_dir}/{SPOOL}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            About.read(spool)
        finally:
            os.close(spool)
