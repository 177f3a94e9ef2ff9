"""A directory that hangs all who enter it, until a test says how that goes on: a file system in a mount namespace.

As a program it makes both, and answers on its standard input and output. Programs get there by `prefix`.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HANGS, _TAKEN = "hangs", "taken"
_NEWNS, _PRIVATE = 0x00020000, 0x44000
# linux/fuse.h: how a request and an answer begin, and the answer to the first request.
_REQUEST, _ANSWER, _INIT = struct.Struct("=IIQ"), struct.Struct("=IiQ"), struct.Struct("=IIIIHHIIHHI28x")


class Hanging:
    """The directory, and what becomes of those who enter it."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self._process = process

    @property
    def prefix(self) -> tuple[str, ...]:
        """The start of a command line that makes it one of those that see the directory."""
        return ("nsenter", f"--target={self._process.pid}", "--mount", "--")

    def await_victim(self) -> None:
        """Return when a process hangs in it."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{_HANGS}\n"

    def take(self) -> None:
        """Keeps who hangs there from being killed too, until there is an answer."""
        assert self._process.stdout is not None
        self._tell("take")
        assert self._process.stdout.readline() == f"{_TAKEN}\n"

    def answer(self, error: int = 0) -> None:
        """Lets in who hangs there, or not: then with this error."""
        self._tell(str(error))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def hanging_directory(directory: Path) -> Iterator[Hanging]:
    """Makes it; skips the test where that cannot be."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("nsenter"):
        pytest.skip("a directory that hangs needs root, /dev/fuse and nsenter")
    directory.mkdir()
    command = [sys.executable, "-m", "tests.hanging", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            ready = process.stdout.readline()
            if ready != "ready\n":
                pytest.skip(f"a directory that hangs cannot be made here: {ready}")
            yield Hanging(directory, process)
        finally:
            process.kill()  # which ends all that hangs in it


def _serve(directory: str) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR)
    _mount(fuse, directory)
    _reply(fuse, _take(fuse), _INIT.pack(7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0))
    _say("ready")
    poll = select.poll()
    poll.register(fuse, select.POLLIN)
    while True:
        poll.poll()  # to enter it is all that is asked for
        _say(_HANGS)
        line, request = sys.stdin.readline().strip(), None
        if line == "take":
            request = _take(fuse)
            _say(_TAKEN)
            line = sys.stdin.readline()
        _reply(fuse, request or _take(fuse), b"", -int(line))


def _take(fuse: int) -> int:
    """Reads a request; who made it cannot be killed until it has its answer. Returns its number."""
    return int(_REQUEST.unpack_from(os.read(fuse, 1 << 20))[2])


def _mount(fuse: int, directory: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if (
        libc.unshare(_NEWNS)
        or libc.mount(None, b"/", None, _PRIVATE, None)
        or libc.mount(b"hanging", directory.encode(), b"fuse", 0, options)
    ):
        sys.exit(os.strerror(ctypes.get_errno()))


def _reply(fuse: int, unique: int, body: bytes, error: int = 0) -> None:
    os.write(fuse, _ANSWER.pack(_ANSWER.size + len(body), error, unique) + body)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
