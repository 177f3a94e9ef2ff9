"""What the records of an execution say, and those that a runner writes where no shim could."""

from __future__ import annotations

import os

from rexec_server.core.spool import (
    START,
    Channel,
    ExitRecord,
    Reason,
    StartError,
    StartRecord,
    read_exit,
    read_file,
    read_start,
)
from rexec_server.runner import linux


def is_ended(directory: int) -> bool:
    """Whether there is an exit record that can be believed; or was, and all is deleted while kept leftovers live on."""
    return read_exit(directory) is not None or is_removed(directory)


def is_removed(directory: int) -> bool:
    """Whether an open directory has no name any more (proc(5))."""
    return os.readlink(f"/proc/self/fd/{directory}").endswith(" (deleted)")


def is_named(name: str, parent: int, directory: int) -> bool:
    """Return True when the open directory still has this name in its parent."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(directory))
    except FileNotFoundError:
        return False


def readable_start(directory: int) -> StartRecord | None:
    """The start record, unless it is damaged."""
    try:
        return read_start(directory)
    except ValueError:
        return None


def never_executed(directory: int) -> bool:
    """Return True when the start record is there and empty, as it was claimed: the exec waits for what is in it."""
    return read_file(START, directory) == b""


def lost(why: str, produced: dict[Channel, int] | None = None) -> ExitRecord:
    """The record of a command of which nobody can know how it ended."""
    stdout, stderr = produced.values() if produced else (0, 0)
    return ExitRecord(Reason.LOST, linux.now_ns(), stdout, stderr, output_complete=False, lost=why, written_by="runner")


def not_started(why: str, name: str = "ECANCELED") -> ExitRecord:
    """The record of a command that certainly was never executed."""
    return ExitRecord(
        Reason.START_FAILED,
        linux.now_ns(),
        0,
        0,
        output_complete=True,
        start_error=StartError(name, why),
        written_by="runner",
    )
