"""The index of one segment of a log: channel, time and place of each piece of its bytes.

There may be millions of pieces, so they stay in the file: an index remembers a mark for each batch of them, and reads a
batch again when it is asked for. It is gone through once, batch by batch, to count and to see that it makes sense.

A power cut, or a damaged disk, may leave less of it than there was. What it cannot tell is not in it.
"""

from __future__ import annotations

import os
import stat
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator
from itertools import compress
from typing import NamedTuple

from rexec_server.core.spool import (
    PIECE_FORMAT,
    SEGMENT_FORMAT,
    Channel,
    NotRegular,
    Segment,
    believable,
    index_name,
    open_regular,
    segment_name,
)

# Pieces of one batch: 24 KiB of the file. To go through it takes 0.1 ms.
BATCH = 1024
_HEAD, _PIECE = SEGMENT_FORMAT.size, PIECE_FORMAT.size
_CHANNELS = frozenset(map(int, Channel))
_LOWEST_BYTE = 0 if sys.byteorder == "little" else 7
# By the lowest byte of a channel's number.
_IS_STDOUT = bytes(int(number == Channel.STDOUT) for number in range(256))


class Range(NamedTuple):
    """A piece with its end."""

    offset: int
    end: int
    time: int
    channel: int


class Batch(NamedTuple):
    """Pieces that follow each other: bytes `start` to `end` of the log, so many of them standard output."""

    number: int
    start: int
    end: int
    stdout: int

    def size(self, channels: Collection[int]) -> int:
        """Return how many bytes are of the channels."""
        stderr = self.end - self.start - self.stdout
        return (Channel.STDOUT in channels) * self.stdout + (Channel.STDERR in channels) * stderr


class _Known(NamedTuple):
    """A piece, and how much of the whole log before it is standard output."""

    offset: int
    channel: int
    stdout: int

    def stdout_at(self, offset: int) -> int:
        """Return how much is standard output up to an offset within the piece."""
        return self.stdout + (offset - self.offset if self.channel == Channel.STDOUT else 0)


class SegmentIndex:
    """The index of one segment, gone through as far as it was written."""

    def __init__(self, directory: str, start: int, batch: int = BATCH) -> None:
        self._batch_size = batch
        self._directory = directory
        self.start = self.end = start
        self.whole = False  # all of the index makes sense
        self._forget()

    def _forget(self) -> None:
        self.stdout_before = 0
        self._sure = 0  # pieces that cannot change any more: the last may be replaced, if no byte has come of it
        self._last: _Known | None = None
        self._last_sure: _Known | None = None
        self._offsets, self._stdout = array("Q"), array("Q")  # at the first piece of each batch

    @property
    def stdout_at_end(self) -> int:
        """The number of bytes of standard output in the log, up to the end of what can be read."""
        known = self._last or self._last_sure
        if known is None:
            return self.stdout_before
        # Else there are pieces whose bytes had not been there when the size was seen.
        return known.stdout_at(self.end) if self.end >= known.offset else self._stdout_at(self.end)

    @property
    def count(self) -> int:
        """The number of pieces."""
        return self._sure + (self._last is not None)

    @property
    def kept(self) -> tuple[int, int]:
        """Bytes of standard output and standard error that can be read."""
        stdout = self.stdout_at_end - self.stdout_before
        return stdout, self.end - self.start - stdout

    def refresh(self) -> None:
        """Go through all that was added, as far as it makes sense. FileNotFoundError: it is no longer kept."""
        while not self.advance():
            pass

    def advance(self) -> bool:
        """Go through one batch more. False: there is more, and nothing else may be asked before that is done."""
        status = os.stat(self._path(segment_name), follow_symlinks=False)
        size, through, whole = status.st_size, True, False
        try:
            if not stat.S_ISREG(status.st_mode):
                raise NotRegular
            fd = open_regular(self._path(index_name))
        except FileNotFoundError:
            os.stat(self._path(segment_name), follow_symlinks=False)  # dropped together, as a rule
        except NotRegular:
            self._forget()
        else:
            try:
                through, whole = self._go_through_batch(fd)
            finally:
                os.close(fd)
        if through:
            self._set_end(size, whole)
        return through

    def batches(self, offset: int) -> Iterator[Batch]:
        """Yield the batches from the one that has `offset` on."""
        for number in range(max(0, bisect_right(self._offsets, offset) - 1), self._filled()):
            yield self._batch(number)

    def batches_backwards(self, offset: int) -> Iterator[Batch]:
        """Yield the batches that begin before `offset`, the newest first."""
        for number in reversed(range(min(self._filled(), bisect_left(self._offsets, offset)))):
            if number < self._filled():  # else it was cut while the caller waited
                yield self._batch(number)

    def pieces(self, batch: Batch, offset: int, channels: Collection[int]) -> Iterator[Range]:
        """Yield the pieces of a batch from `offset` on that are of the channels; the first is cut to begin there."""
        entries, offsets = self._read_batch(batch)
        for i in range(max(0, bisect_right(offsets, offset) - 1), len(offsets)):
            channel = entries[3 * i + 2]
            low = max(offset, offsets[i])
            high = min(self.end, offsets[i + 1] if i + 1 < len(offsets) else batch.end)
            if low < high and channel in channels:
                yield Range(low, high, entries[3 * i + 1], channel)

    def _path(self, name: Callable[[int], str]) -> str:
        return f"{self._directory}/{name(self.start)}"

    # --- going through it ---

    def _go_through_batch(self, fd: int) -> tuple[bool, bool]:
        """Tell if that was all there is, and if it makes sense."""
        written = max(0, os.fstat(fd).st_size - _HEAD) // _PIECE
        if written < self._sure:
            self._forget()  # it was cut
        if not self._sure and not self._read_head(fd):
            self._forget()
            return True, False
        stop = min(written, (self._sure // self._batch_size + 1) * self._batch_size + 1)
        data = os.pread(fd, (stop - self._sure) * _PIECE, _HEAD + self._sure * _PIECE)
        found = len(data) // _PIECE
        believed = self._take(data[: found * _PIECE])
        return believed < found or stop >= written, believed == found

    def _read_head(self, fd: int) -> bool:
        head = os.pread(fd, _HEAD, 0)
        if len(head) < _HEAD:
            return False
        self.stdout_before = Segment.from_bytes(head).stdout_before
        return self.stdout_before <= self.start

    def _take(self, data: bytes) -> int:
        """Takes up the pieces after those that are sure; how many of them can be believed."""
        entries = _numbers(data)
        offsets, channels = entries[0::3], entries[2::3]
        before = self._last_sure
        if not _sound(offsets, channels, self.start, before):
            believed = len([*believable(PIECE_FORMAT.iter_unpack(data), self.start, before and before.offset)])
            offsets, channels = offsets[:believed], channels[:believed]
        if not offsets:
            self._last = None
            return 0
        stdout = before.stdout_at(offsets[0]) if before else self.stdout_before
        self._mark(offsets[0], stdout)
        if len(offsets) > 1:
            stdout += _stdout_within(offsets, channels)
            length = offsets[-1] - offsets[-2] if channels[-2] == Channel.STDOUT else 0
            self._last_sure = _Known(offsets[-2], channels[-2], stdout - length)
            self._sure += len(offsets) - 1
            self._mark(offsets[-1], stdout)
        self._last = _Known(offsets[-1], channels[-1], stdout)
        return len(offsets)

    def _mark(self, offset: int, stdout: int) -> None:
        """Remembers where the first piece that is not sure begins, if a batch begins with it."""
        number, within = divmod(self._sure, self._batch_size)
        if not within:
            for column, value in ((self._offsets, offset), (self._stdout, stdout)):
                del column[number:]
                column.append(value)

    def _set_end(self, size: int, whole: bool) -> None:
        self.whole = whole
        self.end = self.start + size
        known = self._last or self._last_sure
        if not (whole and known):  # where the last piece that is known has ended is not
            self.end = min(self.end, known.offset if known else self.start)

    # --- looking into it ---

    def _filled(self) -> int:
        """Return how many batches have bytes."""
        return bisect_left(self._offsets, self.end)

    def _batch(self, number: int) -> Batch:
        if number + 1 < self._filled():
            end, stdout = self._offsets[number + 1], self._stdout[number + 1]
        else:
            end, stdout = self.end, self.stdout_at_end
        return Batch(number, self._offsets[number], end, stdout - self._stdout[number])

    def _stdout_at(self, offset: int) -> int:
        number = bisect_right(self._offsets, offset) - 1
        entries, offsets = self._read_batch(Batch(number, self._offsets[number], offset, 0))
        edges = array("Q", (min(offset, edge) for edge in (*offsets, offset)))
        return self._stdout[number] + _stdout_within(edges, entries[2::3])

    def _read_batch(self, batch: Batch) -> tuple[array[int], array[int]]:
        """Return the entries of a batch, and the offsets in them. FileNotFoundError when it is no longer kept."""
        first = batch.number * self._batch_size
        count = min(self._batch_size, self.count - first)
        fd = open_regular(self._path(index_name))
        try:
            data = os.pread(fd, count * _PIECE, _HEAD + first * _PIECE)
        finally:
            os.close(fd)
        entries = _numbers(data[: len(data) // _PIECE * _PIECE])
        return entries, entries[0::3]


def _numbers(data: bytes) -> array[int]:
    numbers = array("Q", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _sound(offsets: array[int], channels: array[int], start: int, before: _Known | None) -> bool:
    """Tell if all of these pieces can be believed. As `believable`, at a tenth of the time."""
    if not offsets:
        return True
    first = offsets[0] >= before.offset if before else offsets[0] == start
    in_order = offsets.tolist()
    return first and _CHANNELS.issuperset(channels) and sorted(in_order) == in_order


def _stdout_within(edges: array[int], channels: array[int]) -> int:
    """Return bytes of standard output between the first and the last edge; the channels are of what lies between."""
    stdout = channels.tobytes()[_LOWEST_BYTE::8].translate(_IS_STDOUT)
    return sum(compress(edges[1:], stdout)) - sum(compress(edges[:-1], stdout))
