"""Standard input that stays open: takes writes at an offset, feeds the command's FIFO as it reads.

Each writer has a counter of its own, in a file that outlives a kill of this process: see `counters.py`.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from rexec_server.core.spool import RUNNER_SOCKET
from rexec_server.runner.counters import Counters
from rexec_server.runner.loop import WRITE, Loop, Timer
from rexec_server.runner.wire import encode

# A larger FIFO saves turns. It also takes more of its user's allowance (pipe-user-pages-soft, pipe(7)), and takes
# input that a command does not read. So only one that has read much gets one.
LARGE_FIFO_BYTES = 1024 * 1024
READS_WELL_BYTES = 4 * 1024 * 1024
# A command that reads 4 KiB at a time would wake us for each of them: so it may make some room first.
PAUSE_SECONDS = 0.001
# Between two attempts to tell the runner something while its socket has no name.
LONGEST_PAUSE_SECONDS = 5.0


class StdinWrite:
    """One write that waits for the command to read. `done(error)` is called once: all is in, or nothing further can be.

    writer: whose counter the offset is in; empty: the one that all without a name share.
    skipped: how much of data had been accepted before it was begun.
    """

    __slots__ = ("data", "done", "eof", "offset", "skipped", "writer")

    def __init__(
        self, offset: int, data: bytes | bytearray, eof: bool, done: Callable[[str | None], None], writer: bytes = b""
    ) -> None:
        self.offset = offset
        self.data = data
        self.eof = eof
        self.done = done
        self.writer = writer
        self.skipped: int | None = None

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class StdinFeed:
    """The write end of the command's standard input."""

    def __init__(self, loop: Loop, directory: int, fifo: int, on_eof: Callable[[], None]) -> None:
        self._loop = loop
        self._fifo = fifo
        self._on_eof = on_eof
        self._queue: deque[StdinWrite] = deque()
        self._pause: Timer | None = None
        self._fed = 0  # bytes, by this process; until the FIFO was enlarged
        self._counters = Counters.map(directory)

    @property
    def counters(self) -> Counters:
        return self._counters

    def write(self, write: StdinWrite) -> None:
        if not write.data and not write.eof:
            return write.done(self._refusal(write))  # it only asks
        self._queue.append(write)
        if len(self._queue) == 1:
            self._advance()

    def abandon(self, write: StdinWrite) -> None:
        """Abandon a write that is not waited for any more: what is not in yet stays out."""
        if write in self._queue:
            self._queue.remove(write)
            write.done("abandoned")
            self._advance()

    def close(self) -> None:
        """End-of-file for the command; writes that still wait are told that input is closed."""
        if self._fifo < 0:
            return
        self._loop.unwatch(self._fifo)
        os.close(self._fifo)
        self._fifo = -1
        self._counters.close()
        self._on_eof()
        while self._queue:
            self._finish("closed")

    def _advance(self) -> None:
        """Writes until the queue is empty or the FIFO is full."""
        while self._queue and self._fifo >= 0:
            write = self._queue[0]
            if error := self._refusal(write):
                self._finish(error)
            elif not self._feed(write):
                return self._wait_for_room()
        if self._fifo >= 0:
            self._loop.unwatch(self._fifo)

    def _wait_for_room(self) -> None:
        self._loop.unwatch(self._fifo)
        if self._pause is None:
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._watch)

    def _watch(self) -> None:
        self._pause = None
        if self._queue and self._fifo >= 0:
            self._loop.watch(self._fifo, WRITE, lambda _: self._advance())

    def _refusal(self, write: StdinWrite) -> str | None:
        """Return what stands against a write; note what of it is there already."""
        if write.writer and not self._counters.has_writers:
            return "nameless"
        written = self._counters.written(write.writer, write.offset)
        if written is None:
            return "forgotten"
        if write.offset > written:
            return "beyond"
        if write.skipped is None:
            write.skipped = min(len(write.data), written - write.offset)
        return "uncertain" if self._counters.state.pending else None

    def _feed(self, write: StdinWrite) -> bool:
        """Feeds the next part of a write; False when the FIFO is full."""
        written = self._counters.written(write.writer, write.offset) or 0
        data = memoryview(write.data)[written - write.offset :]
        if data:
            try:
                size = self._counters.count(write.writer, len(data), lambda: os.write(self._fifo, data))
            except BlockingIOError:
                return False
            except BrokenPipeError:  # the command closed its standard input
                self.close()
                return True
            written += size
            self._enlarge(size)
            if size < len(data):
                return False
        if write.end <= written:
            self._queue.popleft()
            if write.eof:
                self.close()  # before it is told: what was told is true, whenever we die
            write.done(None)
        return True

    def _enlarge(self, size: int) -> None:
        if self._fed < READS_WELL_BYTES <= self._fed + size:
            with suppress(OSError):  # too much for its user
                fcntl.fcntl(self._fifo, fcntl.F_SETPIPE_SZ, LARGE_FIFO_BYTES)
        self._fed += size

    def _finish(self, error: str | None) -> None:
        self._queue.popleft().done(error)


def tell_runner_of_eof(loop: Loop, directory: int, execution: str, pause: float = 0.05) -> None:
    """Asks the runner to let go of the input FIFO too; only then does the command see the end of its input."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(f"/proc/self/fd/{directory}/../../{RUNNER_SOCKET}")
            sock.send(encode({"op": "stdin_eof", "id": execution}))
        except BlockingIOError:  # too busy to accept
            loop.call_later(pause, lambda: tell_runner_of_eof(loop, directory, execution))
        except FileNotFoundError:  # its name was removed, and the runner is to make it anew
            longer = min(2 * pause, LONGEST_PAUSE_SECONDS)
            loop.call_later(pause, lambda: tell_runner_of_eof(loop, directory, execution, longer))
        except OSError:
            pass  # no runner: then none holds the FIFO, and the next will read in the state that input is over
