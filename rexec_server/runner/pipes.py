"""The FIFOs between a command and whoever supervises it.

The runner makes them and keeps its ends open for as long as the execution lives: so what a command wrote stays in
its FIFO, and its input does not end, when the shim dies.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from rexec_server.core.launch import Launch, StderrMode, StdinMode
from rexec_server.core.spool import FIFO_ERR, FIFO_IN, FIFO_OUT, Channel

_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
_OUTPUTS = {Channel.STDOUT: FIFO_OUT, Channel.STDERR: FIFO_ERR}


class NotFifo(OSError):
    """Something else is where a FIFO of the spool should be."""


@dataclass
class Pipes:
    """Our ends: a read end for each output channel, and one that keeps the input from ending (or -1)."""

    outputs: dict[Channel, int]
    stdin: int = -1

    @classmethod
    def make(cls, directory: int, launch: Launch) -> Pipes:
        names = [FIFO_OUT] if launch.stderr_mode == StderrMode.MERGED else [FIFO_OUT, FIFO_ERR]
        if launch.stdin_mode == StdinMode.OPEN:
            names.append(FIFO_IN)
        for name in names:
            os.mkfifo(name, 0o600, dir_fd=directory)
            if launch.confinement.user is not None:
                _give(name, directory, launch.confinement.user)
        pipes = cls.open_outputs(directory)
        if FIFO_IN in names:
            # Both ways, until the command has opened its side: a write end alone cannot be opened before that.
            try:
                pipes.stdin = _open_fifo(FIFO_IN, os.O_RDWR, directory)
            except OSError:
                pipes.close()
                raise
        return pipes

    @classmethod
    def open_outputs(cls, directory: int) -> Pipes:
        """The read ends of those output FIFOs that are there."""
        outputs = {}
        for channel, name in _OUTPUTS.items():
            try:
                outputs[channel] = _open_fifo(name, os.O_RDONLY, directory)
            except (FileNotFoundError, NotFifo):
                pass  # merged, or ended; or damaged, and its shim has it open
            except OSError:  # no descriptor is left: those that we have are to be given back
                cls(outputs).close()
                raise
        return cls(outputs)

    @property
    def descriptors(self) -> list[int]:
        return [*self.outputs.values(), *([self.stdin] if self.stdin >= 0 else [])]

    def reopen_outputs(self, directory: int, pid: int) -> bool:
        """Opens FIFOs whose names were removed, by the command's own ends. Returns False when there is none at all."""
        path = os.readlink(f"/proc/self/fd/{directory}")
        for channel, name in _OUTPUTS.items():
            if channel in self.outputs:
                continue
            stream = f"/proc/{pid}/fd/{int(channel)}"
            with suppress(OSError):  # merged; or it has ended, or closed it
                if os.readlink(stream) == f"{path}/{name} (deleted)":
                    self.outputs[channel] = os.open(stream, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return Channel.STDOUT in self.outputs

    def hold_stdin(self, directory: int) -> None:
        """Keeps only a write end, so that a command that closes its input is noticed by its writers."""
        before = self.stdin
        self.stdin = open_stdin_writer(directory) if before < 0 else self.open_stdin_again()
        if before >= 0:
            os.close(before)

    def open_stdin_again(self) -> int:
        """Return another write end, by the one that we have: its name may be gone. -1: the command has closed it."""
        try:
            return os.open(f"/proc/self/fd/{self.stdin}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1

    def release_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close(self) -> None:
        self.release_stdin()
        for fd in self.outputs.values():
            os.close(fd)
        self.outputs = {}


def _open_fifo(name: str, flags: int, directory: int) -> int:
    """Opens it without waiting for another end. NotFifo, OSError."""
    fd = os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFifo(errno.EINVAL, "is not a FIFO", name)
    return fd


def _give(name: str, directory: int, user: int) -> None:
    """So that it can open its streams by name too, which looks at the owner: /dev/stdout, /dev/stdin. OSError."""
    try:
        os.chown(name, user, -1, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        raise OSError(error.errno, f"its streams cannot be given to user {user}: {error.strerror}") from error


def open_stdin_writer(directory: int) -> int:
    """A write end of the input FIFO; -1 when the command does not read it any more."""
    try:
        return _open_fifo(FIFO_IN, os.O_WRONLY, directory)
    except OSError:
        return -1


def open_commands_output(directory: int, channel: Channel) -> int:
    """The command's end. It can read too: so there is always a reader, and our death is no SIGPIPE to it."""
    fifo = _open_fifo(_OUTPUTS[channel], os.O_RDWR, directory)
    os.set_blocking(fifo, True)
    return fifo


def open_commands_input(directory: int) -> int:
    """Open the command's end of its input. The runner holds a write end, so it does not end before its time."""
    fifo = _open_fifo(FIFO_IN, os.O_RDONLY, directory)
    os.set_blocking(fifo, True)
    return fifo


def let_hang_up(fifos: Iterable[int]) -> None:
    """A FIFO that had no writer since we opened it does not tell so (poll(2)); so it gets one for a moment.

    By its descriptor: a shim that has come to its end beside us has removed the name.
    """
    for fifo in fifos:
        try:
            os.close(os.open(f"/proc/self/fd/{fifo}", _WRITE))
        except OSError:
            pass  # no descriptor is left


def remove_fifos(directory: int, keep_outputs: bool = False) -> None:
    """Nobody will open them any more; those who have them open keep them. Standard output's goes last."""
    for name in (FIFO_IN,) if keep_outputs else (FIFO_IN, FIFO_ERR, FIFO_OUT):
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass  # not every execution has each of them
