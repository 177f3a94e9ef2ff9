"""The index of one segment of a log: of which channel, and from when, its bytes are.

A power cut, or a damaged disk, may leave less of it than there was. What cannot be told any more is no part of it.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from rexec_server.core.spool import (
    PIECE_FORMAT,
    SEGMENT_FORMAT,
    Channel,
    Segment,
    believable,
    index_name,
    segment_name,
)


class Range(NamedTuple):
    """A piece with its end."""

    offset: int
    end: int
    time: int
    channel: int


class SegmentIndex:
    """The index of one segment, read as far as it was written."""

    def __init__(self, directory: str, start: int) -> None:
        self._segment_path = f"{directory}/{segment_name(start)}"
        self._index_path = f"{directory}/{index_name(start)}"
        self._offsets, self._times, self._channels = array("Q"), array("Q"), array("B")
        self._stdout = array("Q")  # standard output before each piece, in the whole log
        self.start = self.end = start
        self.stdout_before = 0

    @property
    def stdout_at_end(self) -> int:
        last = bisect_right(self._offsets, self.end) - 1
        if last < 0:
            return self.stdout_before
        length = self.end - self._offsets[last] if self._channels[last] == Channel.STDOUT else 0
        return self._stdout[last] + length

    @property
    def kept(self) -> tuple[int, int]:
        """Bytes of standard output and standard error that can be read."""
        stdout = self.stdout_at_end - self.stdout_before
        return stdout, self.end - self.start - stdout

    def refresh(self) -> None:
        """Reads what was added, as far as it makes sense. FileNotFoundError when the segment is no longer kept."""
        size = os.stat(self._segment_path).st_size
        # The last piece may have been replaced, if no byte had come of it.
        known = max(0, len(self._offsets) - 1)
        for column in (self._offsets, self._times, self._channels, self._stdout):
            del column[known:]
        whole = self._read_index(known)
        self.end = self.start + size
        if not (whole and self._offsets):  # where the last piece that is known has ended is not
            self.end = min(self.end, self._offsets[-1] if self._offsets else self.start)

    def _read_index(self, known: int) -> bool:
        """Reads the pieces after those that are known; whether they make sense to the last."""
        try:
            fd = os.open(self._index_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            os.stat(self._segment_path)  # dropped together, as a rule
            return False
        try:
            if not known:
                head = os.pread(fd, SEGMENT_FORMAT.size, 0)
                if len(head) < SEGMENT_FORMAT.size or Segment.from_bytes(head).stdout_before > self.start:
                    return False
                self.stdout_before = Segment.from_bytes(head).stdout_before
            return self._read_pieces(fd, SEGMENT_FORMAT.size + known * PIECE_FORMAT.size)
        finally:
            os.close(fd)

    def pieces(self, offset: int) -> Iterator[Range]:
        """The pieces from `offset` on; the first is cut to begin there."""
        first = max(0, bisect_right(self._offsets, offset) - 1)
        for i in range(first, len(self._offsets)):
            low, high = max(offset, self._offsets[i]), self._end_of(i)
            if low < high:
                yield Range(low, high, self._times[i], self._channels[i])

    def backwards(self) -> Iterator[Range]:
        """All pieces, the newest first: there may be a million, of which a tail is the last few."""
        for i in reversed(range(len(self._offsets))):
            low, high = self._offsets[i], self._end_of(i)
            if low < high:
                yield Range(low, high, self._times[i], self._channels[i])

    def _end_of(self, i: int) -> int:
        return min(self.end, self._offsets[i + 1] if i + 1 < len(self._offsets) else self.end)

    def _read_pieces(self, fd: int, position: int) -> bool:
        data = os.pread(fd, max(0, os.fstat(fd).st_size - position), position)
        whole = len(data) // PIECE_FORMAT.size * PIECE_FORMAT.size
        entries = PIECE_FORMAT.iter_unpack(data[:whole])
        for offset, time, channel in believable(entries, self.start, self._offsets[-1] if self._offsets else None):
            stdout = self.stdout_before
            if self._offsets:
                length = offset - self._offsets[-1] if self._channels[-1] == Channel.STDOUT else 0
                stdout = self._stdout[-1] + length
            self._offsets.append(offset)
            self._times.append(time)
            self._channels.append(channel)
            self._stdout.append(stdout)
        return len(self._offsets) == (position - SEGMENT_FORMAT.size + whole) // PIECE_FORMAT.size
