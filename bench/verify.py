"""What each candidate's result is compared with. A wrong one ends the candidate's part."""

from __future__ import annotations

import zlib
from typing import Protocol


class Wrong(Exception):
    """A result that is not the command's."""


class Check(Protocol):
    """Takes a command's output, piece by piece. Looking at each costs every candidate the same."""

    def feed(self, piece: bytes) -> None:
        """The next piece. Wrong when it differs."""

    def finish(self) -> None:
        """There is no more. Wrong when some is missing."""


def expect_status(status: int | None, expected: int = 0) -> None:
    if status != expected:
        raise Wrong(f"the exit status is {status}, not {expected}")


def expect_output(output: bytes | str, expected: bytes) -> None:
    data = output.encode() if isinstance(output, str) else output
    if data != expected:
        raise Wrong(f"the output is {data[:40]!r} ({len(data)} bytes), not {expected[:40]!r} ({len(expected)} bytes)")


class Pattern:
    """The output is a block of bytes, again and again, `size` bytes in all."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block, self._twice = len(block), block + block
        self._size = size
        self._at = 0

    def feed(self, piece: bytes) -> None:
        for start in range(0, len(piece), self._block):
            part = piece[start : start + self._block]
            phase = (self._at + start) % self._block
            if self._twice[phase : phase + len(part)] != part:
                raise Wrong(f"the output differs within the {len(part)} bytes from offset {self._at + start}")
        self._at += len(piece)

    def finish(self) -> None:
        if self._at != self._size:
            raise Wrong(f"the output has {self._at} bytes, not {self._size}")


class Checksum:
    """The output has this size and this CRC-32."""

    def __init__(self, size: int, crc: int) -> None:
        self._expected = (size, crc)
        self._size = self._crc = 0

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        self._crc = zlib.crc32(piece, self._crc)

    def finish(self) -> None:
        if (self._size, self._crc) != self._expected:
            raise Wrong(f"the output has {self._size} bytes and CRC {self._crc:08x}, not {self._expected}")
