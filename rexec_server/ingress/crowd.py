"""How many connections there may be: in all and from one peer, and how many of them may not have settled yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Of one listener."""

    connections: int
    arriving: int = 512

    @property
    def of_peer(self) -> int:
        """A quarter: one address, be it of many callers, does not take all."""
        return max(1, self.connections // 4)

    @property
    def arriving_of_peer(self) -> int:
        return max(1, self.arriving // 4)


class Crowded(Exception):
    """There is no room for one more connection."""


class Crowd:
    """Counts connections. Who arrives while too many are arriving takes the place of the one that has for longest.

    An honest client settles within a few round trips, whereas who holds places stays: so the oldest is one of those.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._total = 0
        self._of_peer: Counter[str] = Counter()
        self._arriving: dict[asyncio.Task[None], str] = {}  # in the order in which they came
        self._arriving_of_peer: Counter[str] = Counter()

    def enter(self, peer: str) -> None:
        """One more connection. Crowded."""
        if self._total >= self._bounds.connections:
            raise Crowded(f"{self._total} connections are open")
        if self._of_peer[peer] >= self._bounds.of_peer:
            raise Crowded(f"{self._of_peer[peer]} connections of one address are open")
        self._total += 1
        self._of_peer[peer] += 1

    def leave(self, peer: str) -> None:
        self._total -= 1
        _decrease(self._of_peer, peer)

    def arrive(self, task: asyncio.Task[None], peer: str) -> None:
        """This connection has not settled yet. Another one's task is cancelled where there are too many such."""
        if self._arriving_of_peer[peer] >= self._bounds.arriving_of_peer:
            self._make_room(next(one for one, whose in self._arriving.items() if whose == peer))
        elif len(self._arriving) >= self._bounds.arriving:
            self._make_room(next(iter(self._arriving)))
        self._arriving[task] = peer
        self._arriving_of_peer[peer] += 1

    def arrived(self, task: asyncio.Task[None]) -> None:
        """It has settled, or is gone."""
        peer = self._arriving.pop(task, None)
        if peer is not None:
            _decrease(self._arriving_of_peer, peer)

    def _make_room(self, task: asyncio.Task[None]) -> None:
        self.arrived(task)
        task.cancel()


def _decrease(counts: Counter[str], peer: str) -> None:
    counts[peer] -= 1
    if counts[peer] <= 0:
        del counts[peer]
