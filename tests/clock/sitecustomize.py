"""The wall clock of a whole Python program, set by a file: Python reads this module at its start, wherever it finds it.

It stands for what libfaketime does, and for a clock that is set. Clocks that cannot be set go on as they are.
"""

from __future__ import annotations

import os
import time

_FILE = os.environ.get("REXEC_TEST_CLOCK")
_time, _time_ns = time.time, time.time_ns


def _step() -> float:
    """Return the seconds that the clock is ahead, or, below zero, behind."""
    with open(_FILE or os.devnull) as file:
        return float(file.read() or 0)


if _FILE:
    time.time = lambda: _time() + _step()
    time.time_ns = lambda: _time_ns() + int(_step() * 1e9)
