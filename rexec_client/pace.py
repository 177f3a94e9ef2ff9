"""The amount of standard input on its way at once: more while it is taken quickly, little while it is not."""

from __future__ import annotations

import time
from collections import deque

# Bytes of a piece, and how many may be in flight. Large pieces are cheap. Small ones are taken in time by a command
# that reads slowly, or over a slow line, and cost little when they are sent again.
_STEPS = ((64 * 1024, 1), (256 * 1024, 1), (1024 * 1024, 1), (1024 * 1024, 2), (1024 * 1024, 4), (1024 * 1024, 8))
_FIRST = 1
# Seconds between a piece's start and its answer.
_QUICK, _SLOW = 0.5, 2.0


class Pace:
    """One step further after a quick answer, one back after a slow one, and to the smallest after a failure."""

    def __init__(self) -> None:
        self._step = _FIRST
        self._begun: deque[float] = deque()

    @property
    def size(self) -> int:
        """Bytes of the next piece."""
        return _STEPS[self._step][0]

    @property
    def window(self) -> int:
        """Pieces that may be in flight."""
        return _STEPS[self._step][1]

    def begin(self) -> None:
        """Note that a piece sets out."""
        self._begun.append(time.monotonic())

    def settle(self) -> None:
        """Note that the oldest has arrived."""
        seconds = time.monotonic() - self._begun.popleft()
        if seconds < _QUICK:
            self._step = min(self._step + 1, len(_STEPS) - 1)
        elif seconds > _SLOW:
            self._step = max(self._step - 1, 0)

    def fail(self) -> None:
        """Wait for none of those in flight."""
        self._begun.clear()
        self._step = 0
