"""Work and acts side by side: neither runs away from the other, on a fast machine or a busy one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.torture.schedule import Act

# As many executions may end beyond the point at which an act is due and has not begun.
SLACK = 12


class Pace:
    """Hands out acts when they are due, and makes callers wait for them. `total` executions are all of the work."""

    def __init__(self, acts: Iterable[Act], total: int) -> None:
        self._acts = deque(acts)
        self._total = total
        self._ended = 0
        self._over = False
        self._in_want = 0
        self._changed = threading.Condition()

    def next_act(self) -> Act | None:
        """Waits until it is due; None when there is no more, or no more work."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or not self._acts or self._beyond() >= 0)
            if self._over or not self._acts:
                return None
            self._changed.notify_all()
            return self._acts.popleft()

    def wait_for_acts(self) -> None:
        """Returns when none is overdue, or one that is under way finds nobody to be done to."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._in_want or not self._acts or self._beyond() < SLACK)

    @contextmanager
    def in_want_of_work(self) -> Iterator[None]:
        """For the time of the block an act waits for something to run."""
        with self._changed:
            self._in_want += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._in_want -= 1

    def note_ended(self) -> None:
        """One more execution has ended."""
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def end(self) -> None:
        """There is no more work, or nobody to act: nobody waits any longer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _beyond(self) -> float:
        return self._ended - self._acts[0].at * self._total
