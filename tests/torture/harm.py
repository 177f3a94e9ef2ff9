"""The record of all that was done to rexec: what, to whom, from when to when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Deed:
    """One act against one victim. Times are seconds on CLOCK_MONOTONIC; `until` is when it was undone."""

    what: str
    since: float
    until: float
    pid: int = 0
    execution: str = ""  # of a shim: the first ten characters of its execution's name


class Harm:
    """Deeds, from any thread."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.skipped: dict[str, str] = {}  # what could not be done here, and why
        self._lock = threading.Lock()

    def add(self, what: str, pid: int = 0, execution: str = "") -> Deed:
        """To be called before the act itself: nobody may see what it does and not find it."""
        now = time.monotonic()
        deed = Deed(what, now, now, pid, execution)
        with self._lock:
            self.deeds.append(deed)
        return deed

    @contextmanager
    def lasting(self, what: str, pid: int = 0, execution: str = "") -> Iterator[None]:
        """Something that is undone at the end of the block; it counts as lasting until then."""
        deed = self.add(what, pid, execution)
        deed.until = float("inf")
        try:
            yield
        finally:
            deed.until = time.monotonic()

    def during(self, since: float, until: float, *whats: str) -> list[Deed]:
        """What was done in that time, of these kinds."""
        with self._lock:
            return [d for d in self.deeds if d.what in whats and d.since <= until and d.until >= since]

    def of_execution(self, execution: str, what: str) -> list[Deed]:
        with self._lock:
            return [d for d in self.deeds if d.what == what and d.execution and execution.startswith(d.execution)]

    def counts(self) -> Counter[str]:
        with self._lock:
            return Counter(deed.what for deed in self.deeds)

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.counts().items() if what.startswith("kill "))
