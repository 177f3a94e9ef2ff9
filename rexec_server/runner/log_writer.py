"""Moves a command's output from its FIFOs into the segments of the log.

The bytes go by splice(2) and never pass through this process, so a kill at any instruction loses none: they are in
the FIFO or in the segment. What they are (channel, offset, time) is written to the index before they are moved.
"""

from __future__ import annotations

import errno
import os

from rexec_server.core.launch import Overflow
from rexec_server.core.segment_index import SegmentIndex
from rexec_server.core.spool import (
    INDEX_SUFFIX,
    PIECE_FORMAT,
    SEGMENT_FORMAT,
    Channel,
    NotRegular,
    Piece,
    Segment,
    index_name,
    open_regular,
    segment_name,
    segment_offsets,
)
from rexec_server.runner.linux import now_ns, pending_bytes

# One splice moves at most what the pipe holds; the figure only bounds how long one call may take.
MOVE_BYTES = 1024 * 1024
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
# The log is kept in this many segments, so that dropping the oldest drops an eighth of it.
SEGMENTS = 8
# The index counts against the cap beyond the first block of its file, which is there anyway.
INDEX_FREE_BYTES = 4096
# Bytes of one channel that arrive within this time are one piece: it bounds the index of a command that flushes
# each line to a hundred entries a second.
PIECE_NS = 10_000_000


class OutputLimitReached(Exception):
    """The log holds all that it may hold, and overflow is TERMINATE."""


class LogFull(Exception):
    """The log holds all that it may hold, its oldest output is held, and overflow is WAIT."""


class DamagedLog(Exception):
    """What a dead writer left does not say any more what is in it."""


class LogWriter:
    """Writes one execution's log. A successor continues where a dead writer stopped, or raises DamagedLog.

    OSError with ENOSPC from `take` means that nothing was moved: the bytes are still in the FIFO.
    """

    def __init__(self, directory: int, max_bytes: int, overflow: Overflow) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._segment_bytes = min(MAX_SEGMENT_BYTES, max(1, max_bytes // SEGMENTS))
        self._segments = max(1, max_bytes // self._segment_bytes)
        self._segment = self._index = -1
        self._segment_start = 0
        self._index_end = 0
        self._piece: Piece | None = None
        self._offsets = segment_offsets(directory)
        self.floor = 0  # with WAIT: nothing from this offset on is dropped
        self.end = 0
        self.produced = {Channel.STDOUT: 0, Channel.STDERR: 0}
        if self._offsets:
            self._resume(self._offsets[-1])
        if _newest_index(directory) > self.end:
            self.close()
            raise DamagedLog  # its segment is gone, and what would come next would have offsets that were told already

    def take(self, fifo: int, channel: Channel, must: bool = False) -> int:
        """Moves what is in the FIFO, at most a bounded amount; 0 when there is nothing (now, or ever again).

        must: with WAIT, beyond the limit rather than not at all. OutputLimitReached, LogFull.
        """
        if not pending_bytes(fifo):
            return 0
        if self._at_limit():
            raise OutputLimitReached
        if self.full and not must:
            raise LogFull
        if self._segment < 0 or self._room() <= 0:
            self._roll()
        room = self._room()
        if self._overflow == Overflow.TERMINATE:
            room = min(room, self._max_bytes - self.end)
        self._mark(channel)
        try:
            moved = os.splice(
                fifo,
                self._segment,
                min(room, MOVE_BYTES),
                offset_dst=self.end - self._segment_start,
                flags=os.SPLICE_F_NONBLOCK,
            )
        except BlockingIOError:
            return 0
        self.end += moved
        self.produced[channel] += moved
        return moved

    def close(self) -> None:
        for fd in (self._segment, self._index):
            if fd >= 0:
                os.close(fd)
        self._segment = self._index = -1

    @property
    def full(self) -> bool:
        """True when, with WAIT, there is no room and none can be made."""
        if self._overflow != Overflow.WAIT or (self._segment >= 0 and self._room() > 0):
            return False
        return len(self._offsets) >= self._segments and not self._may_drop()

    def _may_drop(self) -> bool:
        """Tell if the oldest segment is not held for any reader."""
        if self._overflow != Overflow.WAIT:
            return self._overflow == Overflow.DROP_OLDEST
        return (self._offsets[1] if len(self._offsets) > 1 else self.end) <= self.floor

    def _at_limit(self) -> bool:
        return self._overflow == Overflow.TERMINATE and self.end >= self._max_bytes

    def _room(self) -> int:
        """How many bytes this segment still takes."""
        index = max(0, self._index_end - INDEX_FREE_BYTES)
        return self._segment_bytes - index - (self.end - self._segment_start)

    def _mark(self, channel: Channel) -> None:
        """Says in the index what the next bytes are, unless the last entry says it already."""
        now, last = now_ns(), self._piece
        empty = last is not None and last.offset == self.end
        if last and not empty and last.channel == channel and 0 <= now - last.time < PIECE_NS:
            return
        # If no byte came of the last entry, the new one takes its place.
        position = self._index_end - (PIECE_FORMAT.size if empty else 0)
        piece = Piece(self.end, now, channel)
        _write_all(self._index, piece.to_bytes(), position)
        self._index_end = position + PIECE_FORMAT.size
        self._piece = piece

    def _roll(self) -> None:
        """Begins a new segment, and makes room for it under the cap."""
        while len(self._offsets) >= self._segments and self._may_drop():
            self._drop_oldest()
        index = open_regular(index_name(self.end), os.O_RDWR | os.O_CREAT, self._directory)
        try:
            head = Segment(self.produced[Channel.STDOUT]).to_bytes()
            _write_all(index, head, 0)
            segment = _open_segment(self._directory, self.end)
        except OSError:
            os.close(index)
            raise
        self.close()
        self._segment, self._index = segment, index
        self._segment_start = self.end
        self._index_end = len(head)
        self._piece = None
        self._offsets.append(self.end)

    def _drop_oldest(self) -> None:
        oldest = self._offsets[0]
        if oldest == self._segment_start:
            self.close()
        # The bytes first: an index without its segment is only untidy.
        for name in (segment_name(oldest), index_name(oldest)):
            try:
                os.unlink(name, dir_fd=self._directory)
            except FileNotFoundError:
                pass  # a predecessor died between the two
        del self._offsets[0]

    def _resume(self, start: int) -> None:
        """Continues a dead writer's segment: its size says how much was moved, its index what it was."""
        try:
            self._segment = _open_segment(self._directory, start)
        except NotRegular:
            raise DamagedLog from None
        self._segment_start = start
        self.end = start + os.fstat(self._segment).st_size
        try:
            self._index = open_regular(index_name(start), os.O_RDWR, self._directory)
        except (FileNotFoundError, NotRegular):
            self.close()
            raise DamagedLog from None
        index = SegmentIndex(f"/proc/self/fd/{self._directory}", start)  # it reads a million pieces in 0.1 s
        index.refresh()
        if not index.whole or (self.end > start and not index.count):
            self.close()
            raise DamagedLog
        self._index_end = SEGMENT_FORMAT.size + index.count * PIECE_FORMAT.size
        if index.count:
            last = os.pread(self._index, PIECE_FORMAT.size, self._index_end - PIECE_FORMAT.size)
            self._piece = Piece(*PIECE_FORMAT.unpack(last))
            if self._piece.offset > self.end:  # bytes are gone that the index tells of
                self.close()
                raise DamagedLog
        self.produced[Channel.STDOUT] = index.stdout_at_end
        self.produced[Channel.STDERR] = self.end - index.stdout_at_end


def _newest_index(directory: int) -> int:
    """Return where the newest index that says something begins, and one; an empty one is left of a segment's birth."""
    newest = 0
    for name in os.listdir(directory):
        offset = name.removesuffix(INDEX_SUFFIX)
        if name.endswith(INDEX_SUFFIX) and offset.isdigit() and len(offset) == 20:
            size = os.stat(name, dir_fd=directory).st_size
            newest = max(newest, int(offset) + (1 if size > SEGMENT_FORMAT.size else 0))
    return newest


def _open_segment(directory: int, start: int) -> int:
    return open_regular(segment_name(start), os.O_RDWR | os.O_CREAT, directory)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    """All or ENOSPC: what was written in part is written again at the same place."""
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
