"""What each caller has seen of an execution's output, and which lines are new to it."""

from __future__ import annotations

import codecs
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from rexec.v1.execution_pb2 import OutputChunk

Key = tuple[str, str]
"""Caller and exec_id."""

KEPT = 10_000


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
    """The lines that are new to a caller, how many bytes before them were left out, and the mark after them."""

    lines: list[str]
    omitted: int
    mark: Mark


def news(chunks: Sequence[OutputChunk], next_offset: int, mark: Mark | None, most: int, *, ended: bool) -> News:
    """What of the newest output a caller has not seen: whole lines, at most the newest `most`.

    A last line without its newline is shown as far as it has come, and again, from its start, when it has grown:
    so every line is once shown whole.
    """
    mark = mark or Mark()
    # The tail ends at next_offset; counted from there, a gap within it does not matter.
    data = b"".join(chunk.data for chunk in chunks)
    start = next_offset - len(data)
    if next_offset <= mark.end:
        return News([], 0, mark)
    if start < mark.line_start:
        data, start = data[mark.line_start - start :], mark.line_start
    raw = data.split(b"\n")
    unfinished = raw.pop()
    new = Mark(next_offset - len(unfinished), next_offset)
    if unfinished:
        raw.append(unfinished)
    shown = raw[max(0, len(raw) - most) :]
    left_out = start - mark.line_start + sum(len(line) + 1 for line in raw[: len(raw) - len(shown)])
    return News(_decode(shown, final=ended or not unfinished), left_out, new)


def _decode(lines: list[bytes], *, final: bool) -> list[str]:
    """As text; a character of which the last bytes are still to come is left for the next time."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = [decoder.decode(line, final or line is not lines[-1]) for line in lines]
    return [line.removesuffix("\r") for line in text]
