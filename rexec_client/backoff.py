"""How long to wait before trying again, and when to stop."""

from __future__ import annotations

import random
import time

FIRST_DELAY = 0.05
LONGEST_DELAY = 2.0


class Backoff:
    """Growing delays between attempts, until there was no progress for too long.

    The patience is counted from the first failure after the last progress: time spent well is not held against
    a connection that breaks at its end.
    """

    def __init__(self, patience: float) -> None:
        """Give up `patience` seconds after the first failure."""
        self._patience = patience
        self.progress()

    def progress(self) -> None:
        """Something worked: the next failure is a first one again."""
        self._failing_since: float | None = None
        self._delay = FIRST_DELAY

    @property
    def failing(self) -> bool:
        """True from a failure until the next progress."""
        return self._failing_since is not None

    def next_delay(self) -> float | None:
        """Seconds to wait before the next attempt; None when patience is at its end."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        left = self._failing_since + self._patience - now
        if left <= 0:
            return None
        # Half of it random: clients that lost one server at one moment do not come back at one moment.
        delay = self._delay * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        return min(delay, left)
