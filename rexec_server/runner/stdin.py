"""Standard input that stays open: takes writes at an offset, feeds the command's FIFO as it reads.

How far it got is in a small file that is mapped into memory: it survives a kill of this process. A write that was
under way at that moment may or may not have reached the FIFO; then no more is taken, rather than a guess made.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Callable

from rexec_server.core.spool import RUNNER_SOCKET, STDIN_FORMAT, STDIN_STATE, StdinState
from rexec_server.runner.loop import WRITE, Loop
from rexec_server.runner.wire import encode

# As much as an empty FIFO takes; a larger write gains nothing.
WRITE_BYTES = 64 * 1024


class StdinWrite:
    """One write that waits for the command to read. `done(error)` is called once: all is in, or no more can be."""

    __slots__ = ("abandoned", "data", "done", "eof", "offset")

    def __init__(self, offset: int, data: bytes, eof: bool, done: Callable[[str | None], None]) -> None:
        self.offset = offset
        self.data = data
        self.eof = eof
        self.done = done
        self.abandoned = False


class StdinFeed:
    """The write end of the command's standard input."""

    def __init__(self, loop: Loop, directory: int, fifo: int, on_eof: Callable[[], None]) -> None:
        self._loop = loop
        self._fifo = fifo
        self._on_eof = on_eof
        self._queue: deque[StdinWrite] = deque()
        self._file = os.open(STDIN_STATE, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        self._state = StdinState.from_bytes(os.pread(self._file, STDIN_FORMAT.size, 0))
        self._map = mmap.mmap(self._file, STDIN_FORMAT.size)
        self._set(self._state)

    @property
    def state(self) -> StdinState:
        return self._state

    def write(self, write: StdinWrite) -> None:
        self._queue.append(write)
        if len(self._queue) == 1:
            self._advance()

    def close(self) -> None:
        """End-of-file for the command; writes that still wait are told that input is closed."""
        if self._fifo < 0:
            return
        self._loop.unwatch(self._fifo)
        os.close(self._fifo)
        self._fifo = -1
        self._set(self._state._replace(open=0))
        self._map.close()
        os.close(self._file)
        self._on_eof()
        while self._queue:
            self._finish("closed")

    def _advance(self) -> None:
        """Writes until the queue is empty or the FIFO is full."""
        while self._queue and self._fifo >= 0:
            write = self._queue[0]
            if write.abandoned:
                self._queue.popleft()
            elif write.offset > self._state.written:
                self._finish("beyond")
            elif self._state.pending:
                self._finish("uncertain")
            elif not self._feed(write):
                return self._loop.watch(self._fifo, WRITE, lambda _: self._advance())
        if self._fifo >= 0:
            self._loop.unwatch(self._fifo)

    def _feed(self, write: StdinWrite) -> bool:
        """Feeds the next part of a write; False when the FIFO is full."""
        start = self._state.written - write.offset
        data = memoryview(write.data)[start : start + WRITE_BYTES]
        if data:
            try:
                self._write_counted(data)
            except BlockingIOError:
                return False
            except BrokenPipeError:  # the command closed its standard input
                self.close()
                return True
        if write.offset + len(write.data) <= self._state.written:
            self._queue.popleft()
            if write.eof:
                self.close()  # before it is told: what was told is true, whenever we die
            write.done(None)
        return True

    def _write_counted(self, data: memoryview) -> None:
        self._set(self._state._replace(pending=len(data)))
        try:
            written = os.write(self._fifo, data)
        except OSError:
            self._set(self._state._replace(pending=0))
            raise
        self._set(StdinState(self._state.written + written, 0, 1))

    def _finish(self, error: str | None) -> None:
        self._queue.popleft().done(error)

    def _set(self, state: StdinState) -> None:
        self._state = state
        self._map[:] = state.to_bytes()


def reserve_state(directory: int) -> None:
    """Takes the room for the state before the command starts, so that a full disk is no concern later."""
    fd = os.open(STDIN_STATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=directory)
    try:
        os.posix_fallocate(fd, 0, STDIN_FORMAT.size)
        os.pwrite(fd, StdinState().to_bytes(), 0)
    finally:
        os.close(fd)


def tell_runner_of_eof(loop: Loop, directory: int, execution: str) -> None:
    """Asks the runner to let go of the input FIFO too; only then does the command see the end of its input."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(f"/proc/self/fd/{directory}/../../{RUNNER_SOCKET}")
            sock.send(encode({"op": "stdin_eof", "id": execution}))
        except BlockingIOError:  # too busy to accept
            loop.call_later(0.05, lambda: tell_runner_of_eof(loop, directory, execution))
        except OSError:
            pass  # no runner: then none holds the FIFO, and the next will read in the state that input is over
