"""Directories in the spool: claimed, once, for a start, or for the record that there will be none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from contextlib import suppress
from typing import Any

from rexec_server.core.launch import Launch
from rexec_server.core.spool import EXIT, FIFO_OUT, REQUEST, START, ExitRecord, open_regular
from rexec_server.runner.ending import ExitDraft
from rexec_server.runner.estate import Execution
from rexec_server.runner.pipes import Pipes
from rexec_server.runner.takeover import abandon

# The name of what is none of the executions begins with this.
_HIDDEN = "."


def open_directory(name: str, parent: int) -> int:
    """No symbolic link is followed. OSError."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def claim(spool: int, name: str, launch: Launch, reserved: dict[str, Any]) -> Execution:
    """mkdir decides who starts it: whoever comes second finds it claimed. FileExistsError, OSError."""
    os.mkdir(name, 0o750, dir_fd=spool)
    directory = open_directory(name, spool)
    try:
        ExitDraft.reserve(directory)
        _write(REQUEST, json.dumps(reserved).encode(), directory)
        # Empty until the command is about to be executed: one that is missing has been removed, and proves nothing.
        _write(START, b"", directory)
        return Execution(directory, Pipes.make(directory, launch))
    except OSError:
        os.close(directory)
        shutil.rmtree(name, ignore_errors=True, dir_fd=spool)
        raise


def _write(name: str, data: bytes, directory: int) -> None:
    fd = open_regular(name, os.O_WRONLY | os.O_CREAT, directory)
    try:
        if data and os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def claim_for_good(spool: int, name: str, record: ExitRecord) -> None:
    """Makes sure that an execution which was perhaps never asked for is not started later. OSError.

    In one step: a directory without its record would say that it never ran, whatever is true.
    """
    if is_claimed(spool, name):
        return  # it was asked for: its own records tell what became of it
    draft = f"{_HIDDEN}{name}"
    with suppress(FileExistsError):  # our predecessor came so far
        os.mkdir(draft, 0o750, dir_fd=spool)
    directory = open_directory(draft, spool)
    try:
        abandon(directory, record)
    finally:
        os.close(directory)
    os.rename(draft, name, src_dir_fd=spool, dst_dir_fd=spool)


def is_claimed(spool: int, name: str) -> bool:
    """Return True when the execution has a directory. What else has its name, put there by others, is removed."""
    try:
        status = os.stat(name, dir_fd=spool, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        return True
    os.unlink(name, dir_fd=spool)
    return False


def is_hidden(name: str) -> bool:
    """Whether something in the spool is no execution, or not yet."""
    return name.startswith(_HIDDEN)


def is_settled(spool: int, name: str) -> bool:
    """Whether it has ended in this boot, and all is done. With a hundred thousand executions this look is the start."""
    if os.access(f"{name}/{FIFO_OUT}", os.F_OK, dir_fd=spool, follow_symlinks=False):
        return False
    return os.access(f"{name}/{EXIT}", os.F_OK, dir_fd=spool, follow_symlinks=False)
