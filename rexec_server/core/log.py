"""Reading an execution's log: any range of it, its newest lines, and how much there is of it.

The shim writes while we read; nothing is locked. A segment's size is read before its index, so every byte that is
seen has its piece. A segment that vanishes meanwhile was the oldest: what was in it is reported as a gap. So is what
was damaged, up to the next segment or to the end.

A log may have millions of pieces, and a line may have gigabytes: what takes long is done in steps (see `slices.py`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from rexec_server.core.execution import CHANNELS, Extent
from rexec_server.core.segment_index import BATCH, Batch, Range, SegmentIndex
from rexec_server.core.slices import Steps, at_once
from rexec_server.core.spool import Channel, ExitRecord, open_regular, segment_name, segment_offsets

# So many pieces travel in one message at most: to read and to write them takes 10 ms, in which no other is served.
MAX_CHUNKS = 2048
_BLOCK = 64 * 1024
# A batch of pieces is looked through at once if its bytes are not more than this.
_BATCH_BYTES = 4 * _BLOCK
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

    def __init__(self, directory: str, batch: int = BATCH) -> None:
        self._directory = directory
        self._batch = batch
        self._indexes: dict[int, SegmentIndex] = {}

    def catch_up(self) -> Steps[None]:
        """Go through all pieces that have not been looked at yet. After that all but a tail is quick."""
        for start in self._starts():
            with suppress(FileNotFoundError):  # dropped meanwhile
                yield from self._through(start)

    def extent(self, exit_record: ExitRecord | None = None) -> Extent:
        """How much there is. Once ended, the record knows of bytes that could not be kept at the end."""
        return self._retry(lambda: self._extent(exit_record))

    def read(
        self, offset: int, max_bytes: int, channels: Collection[Channel] = CHANNELS, end: int | None = None
    ) -> Reading:
        """What is kept from `offset` on, up to max_bytes of the channels; `end` is the log's final end, if known."""
        found = _Found(offset, max_bytes)
        starts = self._starts()
        if starts or end is not None:
            found.skip_to(starts[0] if starts else end or 0)
        try:
            for start in starts[max(0, bisect_right(starts, found.offset) - 1) :]:
                index = self._index(start)
                if found.left <= 0:
                    return found.reading()
                found.skip_to(start)  # the segment before it, or its index, was damaged
                if found.offset < index.end and not self._take(found, index, channels):
                    return found.reading()
        except FileNotFoundError:
            # Dropped under us; the next read begins with the gap. What we have is right as far as it goes.
            return found.reading() if found.items else self.read(found.offset, max_bytes, channels, end)
        if end is not None and found.left > 0:
            found.skip_to(end)
        return found.reading()

    def tail(self, lines: int | None, max_bytes: int, channels: Collection[Channel] = CHANNELS) -> Steps[int]:
        """Return the offset where the newest lines begin (None: any number), or else the newest bytes of the channels.

        An unfinished last line counts as one.
        """
        while True:
            try:
                return (yield from self._tail(lines, max_bytes, channels))
            except FileNotFoundError:
                continue  # the oldest segment was dropped; the writer cannot lap us for ever

    def tail_lines(self, lines: int, max_bytes: int, channels: Collection[Channel] = CHANNELS) -> int:
        """Do as `tail`, at once."""
        return at_once(self.tail(lines, max_bytes, channels))

    def tail_bytes(self, size: int, channels: Collection[Channel] = CHANNELS) -> int:
        """The offset at which the newest `size` bytes of the channels begin."""
        return at_once(self.tail(None, size, channels))

    def before(self, offset: int, channel: Channel, size: int) -> bytes:
        """At most `size` bytes of a channel that come right before an offset, as far as they are kept."""
        data = b""
        with suppress(FileNotFoundError):  # dropped under us: not kept
            for start in reversed(self._starts()):
                index = self._index(start)
                for batch in index.batches_backwards(offset):
                    if len(data) >= size:
                        return data
                    if batch.size((channel,)):
                        data = self._before(index, batch, offset, channel, size - len(data)) + data
        return data

    def _take(self, found: _Found, index: SegmentIndex, channels: Collection[Channel]) -> bool:
        """Takes what is in a segment; False when there is more in it."""
        with self._segment(index.start) as segment:
            for piece in _pieces(index, found.offset, channels):
                if found.full:
                    break
                found.take(piece, segment)
        if not found.full:
            found.offset = index.end
        return found.offset >= index.end

    def _before(self, index: SegmentIndex, batch: Batch, offset: int, channel: Channel, size: int) -> bytes:
        data = b""
        with self._segment(index.start) as segment:
            for piece in reversed([*index.pieces(batch, batch.start, (channel,))]):
                if piece.offset < offset and len(data) < size:
                    stop = min(offset, piece.end)
                    low = max(piece.offset, stop - (size - len(data)))
                    data = segment.read(low, stop - low) + data
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

    def _tail(self, lines: int | None, max_bytes: int, channels: Collection[Channel]) -> Steps[int]:
        starts = self._starts()
        position = (yield from self._through(starts[-1])).end if starts else 0
        if lines == 0:
            return position
        search = _Search(position, lines, max_bytes, channels)
        for start in reversed(starts):
            index = yield from self._through(start)
            if index.end == start:
                continue
            with self._segment(start) as segment:
                for batch in index.batches_backwards(index.end):
                    if batch.size(channels) and (yield from search.found(index, batch, segment)):
                        return search.position
                    yield
        return search.position

    def _starts(self) -> list[int]:
        try:
            starts = segment_offsets(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            starts = []  # removed with the whole execution
        if len(self._indexes) > len(starts):
            self._indexes = {start: index for start, index in self._indexes.items() if start in starts}
        return starts

    def _through(self, start: int) -> Steps[SegmentIndex]:
        index = self._indexes.get(start)
        if index is None:
            index = self._indexes[start] = SegmentIndex(self._directory, start, self._batch)
        while not index.advance():
            yield
        return index

    def _index(self, start: int) -> SegmentIndex:
        return at_once(self._through(start))

    @contextmanager
    def _segment(self, start: int) -> Iterator[_Segment]:
        fd = open_regular(f"{self._directory}/{segment_name(start)}")
        try:
            yield _Segment(fd, start)
        finally:
            os.close(fd)

    def _retry(self, look: Callable[[], T]) -> T:
        """Looks again when the oldest segment was dropped in between; the writer cannot lap us for ever."""
        while True:
            try:
                return look()
            except FileNotFoundError:
                continue


class _Segment:
    """The bytes of an open segment, by their offsets in the log."""

    def __init__(self, fd: int, start: int) -> None:
        self._fd, self._start = fd, start
        self._ahead, self._ahead_from = b"", start

    def read(self, offset: int, size: int, ahead: int = 0) -> bytes:
        """Return `size` bytes. Of the `ahead` bytes from there on, more are read at once: the next may be short too."""
        if size >= min(ahead, _BLOCK):
            return os.pread(self._fd, size, offset - self._start)
        at = offset - self._ahead_from
        if not 0 <= at <= len(self._ahead) - size:
            self._ahead = os.pread(self._fd, min(ahead, _BLOCK), offset - self._start)
            self._ahead_from, at = offset, 0
        return self._ahead[at : at + size]


class _Found:
    """The pieces that a read has found up to `offset`; it may take `left` bytes more."""

    def __init__(self, offset: int, max_bytes: int) -> None:
        self.items: list[Chunk | Missing] = []
        self.offset, self.left = offset, max_bytes

    @property
    def full(self) -> bool:
        return self.left <= 0 or len(self.items) >= MAX_CHUNKS

    def skip_to(self, offset: int) -> None:
        """Skip to an offset: what is before it is missing."""
        if offset > self.offset:
            self.items.append(Missing(self.offset, offset))
            self.offset = offset

    def take(self, piece: Range, segment: _Segment) -> None:
        data = segment.read(piece.offset, min(self.left, piece.end - piece.offset), self.left)
        self.items.append(Chunk(_CHANNEL[piece.channel], piece.offset, piece.time, data))
        self.left -= len(data)
        self.offset = piece.offset + len(data)

    def reading(self) -> Reading:
        return Reading(self.items, self.offset)


class _Search:
    """A walk back from the end of a log, until there are enough lines or bytes. `position` is how far it has come."""

    def __init__(self, end: int, lines: int | None, max_bytes: int, channels: Collection[Channel]) -> None:
        self.position = end
        self._lines, self._left = lines, max_bytes
        self._channels = channels
        self._at_end = True

    def found(self, index: SegmentIndex, batch: Batch, segment: _Segment) -> Steps[bool]:
        """Goes back through a batch; True when `position` is the answer."""
        if self._skips(index, batch, segment):
            return False
        ranges = [(batch.start, batch.end)]
        if len(self._channels) < len(CHANNELS):
            ranges = [piece[:2] for piece in index.pieces(batch, batch.start, self._channels)]
        for start, high in reversed(ranges):
            while high > start:
                low = max(start, high - min(_BLOCK, self._left))
                if low == high:
                    return True
                if self._lines is not None:
                    block = segment.read(low, high - low)
                    newline, self._lines = _nth_newline_back(block, self._lines, skip_last=self._at_end)
                    if newline >= 0:
                        self.position = low + newline + 1
                        return True
                    yield
                self._at_end = False
                self._left -= high - low
                self.position = high = low
        return False

    def _skips(self, index: SegmentIndex, batch: Batch, segment: _Segment) -> bool:
        """Tell if what is looked for begins before the batch; if so, it has gone back to there."""
        size = batch.size(self._channels)
        if self._at_end or size >= self._left:
            return False
        first = next(index.pieces(batch, batch.start, self._channels), None)
        if first is None:
            return False
        if self._lines is not None:
            if batch.end - batch.start > _BATCH_BYTES:
                return False
            newlines = self._newlines(index, batch, segment.read(batch.start, batch.end - batch.start))
            if newlines >= self._lines:
                return False
            self._lines -= newlines
        self._left -= size
        self.position = first.offset
        return True

    def _newlines(self, index: SegmentIndex, batch: Batch, data: bytes) -> int:
        newlines = data.count(b"\n")
        if newlines and len(self._channels) < len(CHANNELS):
            pieces = index.pieces(batch, batch.start, self._channels)
            newlines = sum(data.count(b"\n", low - batch.start, high - batch.start) for low, high, _, _ in pieces)
        return newlines


def _pieces(index: SegmentIndex, offset: int, channels: Collection[Channel]) -> Iterator[Range]:
    for batch in index.batches(offset):
        if batch.size(channels):
            yield from index.pieces(batch, offset, channels)


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
