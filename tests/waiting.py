"""The one way in which tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.005


def eventually(condition: Callable[[], T], within: float = 60.0) -> T:
    """Returns the condition's first true value; AssertionError, with what it was last, after `within` seconds.

    An AssertionError raised by the condition counts as not true yet.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            last: object = condition()
            if last:
                return last  # type: ignore[return-value]
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; at last: {last!r}")
        time.sleep(POLL_SECONDS)
