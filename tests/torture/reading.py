"""Output as it comes, compared byte by byte with what the command must have written."""

from __future__ import annotations

import re

from rexec.v1 import execution_pb2 as wire

from rexec_client import Gap, OutputChunk
from tests.torture.command import LINE
from tests.torture.workload import CHANNELS, Task

_HEAD = re.compile(rb"\n\d{7} \d (\d{8}) ")


class Reading:
    """One reader of one execution. After a gap it finds its place again by the numbers in the lines."""

    def __init__(self, task: Task, positions: tuple[int, ...] = (0, 0)) -> None:
        self._task = task
        self._positions: dict[int, int | None] = dict(zip(CHANNELS, positions, strict=True))
        self._unplaced = dict.fromkeys(CHANNELS, b"")
        self.received = dict.fromkeys(CHANNELS, 0)
        self.missing = 0
        self.faults: list[str] = []

    @property
    def positions(self) -> tuple[int, ...] | None:
        """Where each channel is; None while a gap has made that unknown."""
        known = tuple(place for place in self._positions.values() if place is not None)
        return known if len(known) == len(CHANNELS) else None

    @property
    def has_all(self) -> bool:
        return all(place == self._task.written(channel) * LINE for channel, place in self._positions.items())

    def take(self, piece: OutputChunk | Gap) -> None:
        if isinstance(piece, Gap):
            self.missing += piece.size
            self._positions = dict.fromkeys(CHANNELS)
            self._unplaced = dict.fromkeys(CHANNELS, b"")
        else:
            self.received[piece.channel] += len(piece.data)
            self._check(piece.channel, piece.data)

    def finish(self, execution: wire.Execution) -> None:
        """All has come: what could not be placed yet is the end of its channel."""
        for total in execution.totals:
            data, self._unplaced[total.channel] = self._unplaced[total.channel], b""
            if self._positions[total.channel] is None:
                self._compare(total.channel, total.bytes_produced - len(data), data)
                self._positions[total.channel] = total.bytes_produced
            elif self._positions[total.channel] != total.bytes_produced:
                self._fault(total.channel, f"read up to {self._positions[total.channel]}, not {total.bytes_produced}")

    def _check(self, channel: int, data: bytes) -> None:
        place = self._positions[channel]
        if place is None:
            data = self._unplaced[channel] + data
            place = _place(data)
            self._unplaced[channel] = data if place is None else b""
            if place is None:
                return
        self._compare(channel, place, data)
        self._positions[channel] = place + len(data)

    def _compare(self, channel: int, place: int, data: bytes) -> None:
        expected = self._task.expected(channel, place, len(data))
        if data != expected:
            pairs = enumerate(zip(data, expected, strict=False))
            at = next((i for i, (one, other) in pairs if one != other), len(expected))
            found, wanted = data[at : at + 60], expected[at : at + 60]
            self._fault(channel, f"differs at {place + at}: {found!r}, not {wanted!r}")

    def _fault(self, channel: int, what: str) -> None:
        if len(self.faults) < 5:
            self.faults.append(f"{wire.Channel.Name(channel)}: {what}")  # type: ignore[arg-type]


def _place(data: bytes) -> int | None:
    """The position of the first byte, told by the first head of a line; None while there is none."""
    head = _HEAD.search(data)
    return int(head[1]) * LINE - (head.start() + 1) if head else None
