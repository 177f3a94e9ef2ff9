"""Counters of standard input: how far each writer has got, in a file that is mapped into memory.

So they survive a kill of this process. A write that was under way at that moment may or may not have reached the FIFO;
then nothing further is taken, rather than a guess made.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

from rexec_server.core.spool import STDIN_FORMAT, STDIN_STATE, NotRegular, StdinState, open_regular, read_file
from rexec_server.core.stdin_writers import STDIN_BYTES, Writers


class Counters:
    """The state file, for the one process that may write it; once closed, it tells what it knew last."""

    def __init__(self, data: bytes, mapped: mmap.mmap | None) -> None:
        self.state = StdinState.from_bytes(data)
        self._map = mapped
        self._data: mmap.mmap | bytes = mapped if mapped is not None else data
        self.has_writers = len(self._data) >= STDIN_BYTES

    @classmethod
    def map(cls, directory: int) -> Counters:
        fd = open_regular(STDIN_STATE, os.O_RDWR, directory)
        try:
            size = _grow(fd)
            mapped = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        return cls(mapped[:], mapped)

    @classmethod
    def read(cls, directory: int) -> Counters:
        """Read them as the last supervisor left them. Input is closed, or was never open."""
        try:
            data = read_file(STDIN_STATE, directory) or b""
        except NotRegular:
            data = b""  # as one that was cut
        counters = cls(data, None)
        counters.state = StdinState.from_bytes(data)._replace(open=0)
        return counters

    def written(self, writer: bytes, offset: int) -> int | None:
        """Return the counter of a writer who would go on at `offset`; None when the writer is forgotten."""
        if not writer:
            return self.state.written
        return Writers(self._data).written(writer, offset) if self.has_writers else None

    def count(self, writer: bytes, size: int, write: Callable[[], int]) -> int:
        """Calls `write`, which writes up to `size` bytes, and counts what it returns, which it returns too."""
        assert self._map is not None
        table = Writers(self._map)
        if writer:
            table.admit(writer)
        self._set(self.state._replace(pending=size))
        try:
            written = write()
        except OSError:
            self._set(self.state._replace(pending=0))
            raise
        if writer:
            table.note(writer, (table.written(writer, 0) or 0) + written)
            self._set(self.state._replace(pending=0))
        else:
            self._set(StdinState(self.state.written + written, 0, 1))
        return written

    def close(self) -> None:
        """Note that input is over."""
        if self._map is not None:
            self._set(self.state._replace(open=0))
            self._data = self._map[:]
            self._map.close()
            self._map = None

    def _set(self, state: StdinState) -> None:
        """Set both in one store: written and pending change together."""
        assert self._map is not None
        self.state = state
        self._map[: STDIN_FORMAT.size] = state.to_bytes()


def _grow(fd: int) -> int:
    """Takes the room for the writers that a shim of an earlier version did not; returns the size that there is."""
    if os.fstat(fd).st_size < STDIN_BYTES:
        try:
            os.posix_fallocate(fd, 0, STDIN_BYTES)
        except OSError:  # a full disk: then it goes on as that version did
            return STDIN_FORMAT.size
    return STDIN_BYTES


def reserve_uncertain(directory: int) -> None:
    """Make the state anew where it was removed: how far input has got is not known, so no further input is taken."""
    reserve_state(directory, StdinState(pending=1))


def reserve_state(directory: int, state: StdinState = StdinState()) -> None:  # noqa: B008
    """Take the room for the state before the command starts, so that a full disk does not matter later."""
    fd = open_regular(STDIN_STATE, os.O_RDWR | os.O_CREAT, directory)
    try:
        os.posix_fallocate(fd, 0, STDIN_BYTES)
        os.pwrite(fd, state.to_bytes(), 0)
    finally:
        os.close(fd)
