"""What a restart of the machine left of a log: cut to what is certainly right, so that the rest is an exact gap.

Output is not synced while a command runs: a power cut may take the end of a segment or of its index, or leave zeros
in its place. Once a log is synced its execution's FIFOs are removed, so those that are there say: look here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from rexec_server.core.spool import (
    PIECE_FORMAT,
    SEGMENT_FORMAT,
    Channel,
    ExitRecord,
    NotRegular,
    Piece,
    Segment,
    believable,
    index_name,
    open_regular,
    read_whole,
    segment_name,
    segment_offsets,
)

PAGE = 4096


class _Found(NamedTuple):
    """A segment as it is on disk."""

    start: int
    size: int
    stdout_before: int
    pieces: list[Piece]
    intact: bool  # the index makes sense to its end


def sync_log(directory: int) -> None:
    """Returns when the output is on disk. OSError."""
    for start in segment_offsets(directory):
        for name in (segment_name(start), index_name(start)):
            try:
                fd = open_regular(name, directory=directory)
            except (NotRegular, FileNotFoundError):
                continue  # nothing of it can be read, so nothing is to be kept
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)


def mend_log(directory: int, record: ExitRecord | None) -> dict[Channel, int]:
    """Cuts the log to its certain part; how many bytes of each channel it has had up to there. OSError."""
    offsets = segment_offsets(directory)
    produced = {Channel.STDOUT: 0, Channel.STDERR: 0}
    for number, start in enumerate(offsets):
        found = _look(directory, start)
        if number == 0 and found.pieces:
            produced = {Channel.STDOUT: found.stdout_before, Channel.STDERR: start - found.stdout_before}
        following = offsets[number + 1] if number + 1 < len(offsets) else None
        whole = start + found.size
        totals = _totals(found, whole, produced)
        if following is None:
            sure = found.intact and (record is None or totals == _recorded(record))
        else:
            continues = _look(directory, following).stdout_before == totals[Channel.STDOUT]
            sure = found.intact and whole == following and continues
        end = whole if sure else _certain_end(found)
        end = min(end, _first_zeros(directory, found, end))
        produced = _totals(found, end, produced)
        if end < whole or not sure:
            _cut(directory, found, end)
            _remove(directory, offsets[number + 1 :])
            break
    sync_log(directory)
    return produced


def _look(directory: int, start: int) -> _Found:
    status = os.stat(segment_name(start), dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return _Found(start, 0, 0, [], intact=False)
    size = status.st_size
    try:
        data = read_whole(index_name(start), directory) or b""
    except NotRegular:
        data = b""
    if len(data) < SEGMENT_FORMAT.size or Segment.from_bytes(data).stdout_before > start:
        return _Found(start, size, 0, [], intact=False)
    body = data[SEGMENT_FORMAT.size :]
    entries = PIECE_FORMAT.iter_unpack(body[: len(body) // PIECE_FORMAT.size * PIECE_FORMAT.size])
    pieces = [Piece(*fields) for fields in believable(entries, start)]
    intact = bool(pieces) and len(pieces) * PIECE_FORMAT.size == len(body)
    return _Found(start, size, Segment.from_bytes(data).stdout_before, pieces, intact)


def _ranges(found: _Found, end: int) -> Iterator[tuple[int, int]]:
    """Channel and length of each piece up to an offset."""
    edges = [*(piece.offset for piece in found.pieces[1:]), end]
    for piece, edge in zip(found.pieces, edges, strict=False):
        yield piece.channel, max(0, min(edge, end) - piece.offset)


def _totals(found: _Found, end: int, before: dict[Channel, int]) -> dict[Channel, int]:
    totals = dict(before)
    for channel, length in _ranges(found, end):
        totals[Channel(channel)] += length
    return totals


def _recorded(record: ExitRecord) -> dict[Channel, int]:
    return {Channel.STDOUT: record.stdout_bytes, Channel.STDERR: record.stderr_bytes}


def _certain_end(found: _Found) -> int:
    """Where the last piece begins: another may have followed it, of which the index knows nothing any more."""
    return min(found.start + found.size, found.pieces[-1].offset) if found.pieces else found.start


def _first_zeros(directory: int, found: _Found, end: int) -> int:
    """Where the first page begins to be zero up to its end: so looks what was never written back."""
    if end <= found.start:
        return end
    fd = open_regular(segment_name(found.start), directory=directory)
    try:
        for position in range(0, end - found.start, PAGE):
            page = os.pread(fd, min(PAGE, end - found.start - position), position)
            if page.endswith(b"\0"):
                return found.start + position + len(page.rstrip(b"\0"))
    finally:
        os.close(fd)
    return end


def _cut(directory: int, found: _Found, end: int) -> None:
    kept = [piece for piece in found.pieces if piece.offset < end]
    if not kept:
        return _remove(directory, [found.start])
    for name, size in (
        (segment_name(found.start), end - found.start),
        (index_name(found.start), SEGMENT_FORMAT.size + len(kept) * PIECE_FORMAT.size),
    ):
        fd = open_regular(name, os.O_WRONLY, directory)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)


def _remove(directory: int, offsets: list[int]) -> None:
    for start in offsets:
        for name in (segment_name(start), index_name(start)):
            try:
                os.unlink(name, dir_fd=directory)
            except (FileNotFoundError, IsADirectoryError):
                pass  # a power cut took it before; or it never was ours
