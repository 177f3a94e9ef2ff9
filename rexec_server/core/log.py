"""Reading an execution's log: any range of it, its newest lines, and how much there is of it.

The shim writes while we read; nothing is locked. A segment's size is read before its index, so every byte that is
seen has its piece. A segment that vanishes meanwhile was the oldest: what was in it is reported as a gap. So is what
was damaged, up to the next segment or to the end.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from rexec_server.core.execution import CHANNELS, Extent
from rexec_server.core.segment_index import Range, SegmentIndex
from rexec_server.core.spool import Channel, ExitRecord, segment_name, segment_offsets

# So many pieces travel in one message at most; with their headers they stay far below gRPC's 4 MiB.
MAX_CHUNKS = 8192
_BLOCK = 64 * 1024
# Indexes of this many segments are remembered per reader.
_REMEMBERED = 4
# A look-up is a fraction of what Channel(number) takes.
_CHANNEL = {int(channel): channel for channel in Channel}

T = TypeVar("T")


class Chunk(NamedTuple):
    """Bytes of one channel, cut anywhere. `time` is nanoseconds since 1970."""

    channel: Channel
    offset: int
    time: int
    data: bytes


class Missing(NamedTuple):
    """A range of offsets that is no longer kept."""

    start: int
    end: int


class Reading(NamedTuple):
    """What a read gave, in order, and where to go on."""

    items: list[Chunk | Missing]
    next_offset: int

    @property
    def chunks(self) -> list[Chunk]:
        return [item for item in self.items if isinstance(item, Chunk)]

    @property
    def skipped(self) -> int:
        return sum(item.end - item.start for item in self.items if isinstance(item, Missing))


class LogReader:
    """Reads the log in one execution's directory, however long, at any offset."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._indexes: dict[int, SegmentIndex] = {}

    def extent(self, exit_record: ExitRecord | None = None) -> Extent:
        """How much there is. Once ended, the record knows of bytes that could not be kept at the end."""
        return self._retry(lambda: self._extent(exit_record))

    def read(
        self, offset: int, max_bytes: int, channels: Collection[Channel] = CHANNELS, end: int | None = None
    ) -> Reading:
        """What is kept from `offset` on, up to max_bytes of the channels; `end` is the log's final end, if known."""
        items: list[Chunk | Missing] = []
        left = max_bytes
        starts = self._starts()
        if not starts or offset < starts[0]:
            known = starts[0] if starts else end
            if known is not None and known > offset:
                items.append(Missing(offset, known))
                offset = known
        for start in starts[max(0, bisect_right(starts, offset) - 1) :]:
            try:
                index = self._index(start)
                if left <= 0:
                    return Reading(items, offset)
                if offset < start:  # the segment before it, or its index, was damaged
                    items.append(Missing(offset, start))
                    offset = start
                with self._segment(start) as segment:
                    for piece in index.pieces(offset):
                        if left <= 0 or len(items) >= MAX_CHUNKS:
                            return Reading(items, offset)
                        if piece.channel in channels:
                            data = os.pread(segment, min(left, piece.end - piece.offset), piece.offset - start)
                            items.append(Chunk(_CHANNEL[piece.channel], piece.offset, piece.time, data))
                            left -= len(data)
                            offset = piece.offset + len(data)
                        else:
                            offset = piece.end
            except FileNotFoundError:
                # Dropped under us; the next read begins with the gap. What we have is right as far as it goes.
                return Reading(items, offset) if items else self.read(offset, max_bytes, channels, end)
        if end is not None and offset < end and left > 0:
            items.append(Missing(offset, end))
            offset = end
        return Reading(items, offset)

    def tail_lines(self, lines: int, max_bytes: int, channels: Collection[Channel] = CHANNELS) -> int:
        """The offset at which the newest lines begin; an unfinished last line counts as one."""
        return self._retry(lambda: self._tail(max_bytes, channels, lines))

    def tail_bytes(self, size: int, channels: Collection[Channel] = CHANNELS) -> int:
        """The offset at which the newest `size` bytes of the channels begin."""
        return self._retry(lambda: self._tail(size, channels, None))

    def before(self, offset: int, channel: Channel, size: int) -> bytes:
        """At most `size` bytes of a channel that come right before an offset, as far as they are kept."""
        data = b""
        try:
            for piece, start in self._backwards():
                if len(data) >= size:
                    break
                if piece.channel == channel and piece.offset < offset:
                    stop = min(offset, piece.end)
                    low = max(piece.offset, stop - (size - len(data)))
                    data = self._pread(start, low, stop - low) + data
        except FileNotFoundError:
            pass  # dropped under us: not kept
        return data

    def _extent(self, exit_record: ExitRecord | None) -> Extent:
        starts = self._starts()
        recorded = (exit_record.stdout_bytes, exit_record.stderr_bytes) if exit_record else None
        if not starts:
            produced = recorded or (0, 0)
            return Extent(sum(produced), sum(produced), produced, produced)
        stdout_before = self._index(starts[0]).stdout_before
        if recorded:
            kept = [self._index(start).kept for start in starts]
            missing = (recorded[0] - sum(out for out, _ in kept), recorded[1] - sum(err for _, err in kept))
            return Extent(starts[0], sum(recorded), recorded, missing)
        last = self._index(starts[-1])
        produced = (last.stdout_at_end, last.end - last.stdout_at_end)
        return Extent(starts[0], last.end, produced, (stdout_before, starts[0] - stdout_before))

    def _tail(self, max_bytes: int, channels: Collection[Channel], lines: int | None) -> int:
        """Walks back until there are enough lines (None: any number) or bytes."""
        starts = self._starts()
        position = self._index(starts[-1]).end if starts else 0
        wanted, left, at_end = lines, max_bytes, True
        if wanted == 0:
            return position
        for piece, start in self._backwards():
            if piece.channel not in channels:
                continue
            high = piece.end
            while high > piece.offset:
                low = max(piece.offset, high - min(_BLOCK, left))
                if low == high:
                    return position
                if wanted is not None:
                    block = self._pread(start, low, high - low)
                    found, wanted = _nth_newline_back(block, wanted, skip_last=at_end)
                    if found >= 0:
                        return low + found + 1
                at_end = False
                left -= high - low
                position = high = low
        return position

    def _backwards(self) -> Iterator[tuple[Range, int]]:
        for start in reversed(self._starts()):
            for piece in self._index(start).backwards():
                yield piece, start

    def _starts(self) -> list[int]:
        try:
            return segment_offsets(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return []  # removed with the whole execution

    def _index(self, start: int) -> SegmentIndex:
        index = self._indexes.pop(start, None) or SegmentIndex(self._directory, start)
        index.refresh()
        self._indexes[start] = index
        if len(self._indexes) > _REMEMBERED:
            del self._indexes[next(iter(self._indexes))]
        return index

    @contextmanager
    def _segment(self, start: int) -> Iterator[int]:
        fd = os.open(f"{self._directory}/{segment_name(start)}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _pread(self, start: int, offset: int, size: int) -> bytes:
        with self._segment(start) as segment:
            return os.pread(segment, size, offset - start)

    def _retry(self, look: Callable[[], T]) -> T:
        """Looks again when the oldest segment was dropped in between; the writer cannot lap us for ever."""
        while True:
            try:
                return look()
            except FileNotFoundError:
                continue


def _nth_newline_back(block: bytes, wanted: int, skip_last: bool) -> tuple[int, int]:
    """Position of the newline before the wanted newest lines, or -1 and how many lines are still wanted.

    A newline at the very end of the output ends its last line, and begins none.
    """
    stop = len(block) - 1 if skip_last and block.endswith(b"\n") else len(block)
    while wanted > 0:
        stop = block.rfind(b"\n", 0, stop)
        if stop < 0:
            return -1, wanted
        wanted -= 1
    return stop, 0
