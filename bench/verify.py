"""What each candidate's result is compared with. A wrong one ends the candidate's part."""

from __future__ import annotations

from collections.abc import Iterable


class Wrong(Exception):
    """A result that is not the command's."""


def expect_status(status: int | None, expected: int = 0) -> None:
    if status != expected:
        raise Wrong(f"the exit status is {status}, not {expected}")


def expect_output(output: bytes | str, expected: bytes) -> None:
    data = output.encode() if isinstance(output, str) else output
    if data != expected:
        raise Wrong(f"the output is {data[:40]!r} ({len(data)} bytes), not {expected[:40]!r} ({len(expected)} bytes)")


class Pattern:
    """A block of bytes that repeats. Taking each piece of output and comparing it costs every candidate the same."""

    def __init__(self, block: bytes) -> None:
        self.block = block
        self._twice = block + block

    def check(self, pieces: Iterable[bytes], size: int) -> None:
        """Wrong unless the pieces are the pattern, from its start, `size` bytes in all."""
        at = 0
        for piece in pieces:
            for start in range(0, len(piece), len(self.block)):
                part = piece[start : start + len(self.block)]
                phase = (at + start) % len(self.block)
                if self._twice[phase : phase + len(part)] != part:
                    raise Wrong(f"the output differs within the {len(part)} bytes from offset {at + start}")
            at += len(piece)
        if at != size:
            raise Wrong(f"the output has {at} bytes, not {size}")
