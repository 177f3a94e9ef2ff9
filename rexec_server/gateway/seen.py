"""Marks of how far each caller has seen an execution's output, and the lines that are new to it."""

from __future__ import annotations

import codecs
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rexec.v1.execution_pb2 import OutputChunk
from rexec.v1.execution_service_pb2 import PollResponse

Key = tuple[str, str]
"""Caller and exec_id."""

KEPT = 10_000
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a caller has read: `end`, and where the line began that was not finished there."""

    line_start: int = 0
    end: int = 0


class Seen:
    """A bounded map from executions to marks. A forgotten mark costs nobody a line: the newest come again."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._marks: OrderedDict[Key, Mark] = OrderedDict()

    def get(self, key: Key) -> Mark | None:
        with self._lock:
            return self._marks.get(key)

    def put(self, key: Key, mark: Mark) -> None:
        with self._lock:
            # Of two polls at once the one that answered more may be written first.
            old = self._marks.pop(key, mark)
            self._marks[key] = max(old, mark, key=lambda known: known.end)
            while len(self._marks) > self._kept:
                self._marks.popitem(last=False)


@dataclass(frozen=True, slots=True)
class News:
    """The lines that are new to a caller, and the mark after them.

    omitted: bytes that are kept, and were left out because there were too many.
    missing: bytes that the caller has not seen, and that are no longer kept.
    """

    lines: list[str]
    omitted: int
    missing: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class _Line:
    """A line as far as it is kept, with its newline if that has come; `start` is its offset in the log."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


def news(reply: PollResponse, mark: Mark | None, most: int, *, ended: bool) -> News:
    """Return what of the newest output a caller has not seen: whole lines, at most the newest `most`.

    A last line without its newline is shown as far as it has come, and again, from its start, when it has grown:
    so every line is once shown whole.
    """
    mark, end = mark or Mark(), reply.next_offset
    if end <= mark.end:
        return News([], 0, 0, mark)
    new = [line for line in _lines(reply.chunks, mark.line_start) if line.end > mark.end]
    left_out, shown = new[: max(0, len(new) - most)], new[max(0, len(new) - most) :]
    unfinished = bool(shown) and shown[-1].end == end and not shown[-1].data.endswith(b"\n")
    # The reply begins here: its bytes and its holes add up to its end.
    begin = end - reply.skipped_bytes - sum(len(chunk.data) for chunk in reply.chunks)
    gone = min(reply.execution.log_start_offset, begin)
    return News(
        lines=_decode([line.data.removesuffix(b"\n") for line in shown], final=ended or not unfinished),
        omitted=max(0, begin - max(mark.line_start, gone)) + sum(len(line.data) for line in left_out),
        missing=max(0, gone - mark.end) + end - max(begin, mark.end) - _size_behind(mark.end, reply.chunks),
        mark=Mark(shown[-1].start if unfinished else end, end),
    )


def _lines(chunks: Iterable[OutputChunk], start: int) -> Iterator[_Line]:
    """Yield the lines from an offset on. A line ends where output is missing."""
    for offset, data in _runs(chunks):
        for found in _LINE.finditer(data, max(0, start - offset)):
            yield _Line(offset + found.start(), found[0])


def _runs(chunks: Iterable[OutputChunk]) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of all that hangs together: how output was cut on its way says nothing."""
    parts: list[OutputChunk] = []
    for chunk in chunks:
        if parts and chunk.offset != parts[-1].offset + len(parts[-1].data):
            yield parts[0].offset, b"".join(part.data for part in parts)
            parts = []
        parts.append(chunk)
    if parts:
        yield parts[0].offset, b"".join(part.data for part in parts)


def _size_behind(offset: int, chunks: Iterable[OutputChunk]) -> int:
    """Return how many of the bytes stand at or behind an offset."""
    return sum(max(0, min(len(chunk.data), chunk.offset + len(chunk.data) - offset)) for chunk in chunks)


def _decode(lines: list[bytes], *, final: bool) -> list[str]:
    """As text; a character of which the last bytes are still to come is left for the next time."""
    text = [line.decode(errors="replace") for line in lines[:-1]]
    text += [codecs.getincrementaldecoder("utf-8")("replace").decode(line, final) for line in lines[-1:]]
    return [line.removesuffix("\r") for line in text]
