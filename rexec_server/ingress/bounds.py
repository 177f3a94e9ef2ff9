"""Limits on the connections before a listener: in all, of one peer, and of those that have not settled yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Of one listener."""

    connections: int
    arriving: int = 512

    @property
    def of_peer(self) -> int:
        """A quarter: one address, though it may be of many callers, does not take all."""
        return max(1, self.connections // 4)

    @property
    def arriving_of_peer(self) -> int:
        return max(1, self.arriving // 4)
