"""Output that is held for its readers: the holders of an execution, and the floor that follows from them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rexec_server.core.errors import Exhausted
from rexec_server.core.spool import RELEASED

# A holder whose connection was cut holds its output for this long.
GONE_SECONDS = 60.0
MAX_HOLDERS = 64


@dataclass(slots=True)
class Holder:
    """One reader that holds what it has not used up. Times are seconds of the event loop's clock."""

    offset: int  # everything before it was used up
    attached: int = 0  # its calls that are open
    left_at: float = 0.0
    passed: tuple[int, int] = (0, 0)  # a range without output of its channels: given as soon as what is before it is

    def use_up(self, offset: int) -> None:
        """Notes how far it is; a smaller offset changes nothing."""
        self.offset = max(self.offset, offset)
        if self.passed[0] <= self.offset < self.passed[1]:
            self.offset = self.passed[1]

    def pass_over(self, start: int, end: int) -> None:
        """Notes a range in which there is nothing for it."""
        self.passed = (start, end)
        self.use_up(self.offset)

    def counts(self, now: float) -> bool:
        return self.attached > 0 or now - self.left_at < GONE_SECONDS


@dataclass(slots=True)
class Holding:
    """The holders of one execution. Nothing from the floor on is dropped.

    The floor is the smallest offset of the holders that are attached or left not long ago; without any it stays.
    """

    floor: int
    told: int  # the floor that the supervisor knows
    holders: dict[str, Holder] = field(default_factory=dict)
    expiry: asyncio.TimerHandle | None = None  # for those that are gone

    @property
    def attached(self) -> bool:
        return any(holder.attached for holder in self.holders.values())

    def holder(self, name: str, offset: int | None, log_start: int, now: float) -> Holder:
        """Return that holder, from an offset on; without one, a new one holds what is held already. Exhausted."""
        holder = self.holders.get(name)
        if holder is None:
            self.refresh(now)
            if len(self.holders) >= MAX_HOLDERS:
                raise Exhausted("holder", f"limit reached: {MAX_HOLDERS} holders of this execution", GONE_SECONDS)
            held = log_start if self.floor == RELEASED else self.floor
            holder = self.holders[name] = Holder(held if offset is None else offset, left_at=now)
        elif offset is not None:
            holder.use_up(offset)
        return holder

    def refresh(self, now: float) -> None:
        """Forgets those that are gone for good, and moves the floor."""
        for name in [name for name, holder in self.holders.items() if not holder.counts(now)]:
            del self.holders[name]
        if self.holders:
            self.floor = min(holder.offset for holder in self.holders.values())

    def release(self, name: str, now: float) -> None:
        """Let a holder leave; after the last one nothing is held."""
        self.holders.pop(name, None)
        self.refresh(now)
        if not self.holders:
            self.floor = RELEASED
