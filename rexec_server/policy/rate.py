"""How often something may be done: token buckets, and many of them in bounded memory."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h|d)", re.ASCII)
# Who comes back after exactly the time that was told is let in, whatever floating point makes of it.
_ROUNDING = 1e-6
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Rate(NamedTuple):
    """So many times in so many seconds; as many at once, if none came before."""

    times: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From a text such as 10/s, 600/m, 100/h or 1000/d. ValueError."""
        match = _RATE.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is no rate; write for example 10/s, 600/m or 100/h")
        return cls(int(match[1]), _SECONDS[match[2]])


class Buckets:
    """One bucket per key, filled at a rate. The least used is forgotten when there are more than `most` keys."""

    def __init__(self, rate: Rate | None, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        """rate: None takes everything."""
        self._rate = rate
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and when it was that

    def take(self, key: str) -> float:
        """Takes one. Returns 0.0, or, when there is none, after how many seconds there will be one."""
        if self._rate is None:
            return 0.0
        now, per_second = self._clock(), self._rate.times / self._rate.seconds
        level, at = self._levels.pop(key, (float(self._rate.times), now))
        level = min(self._rate.times, level + (now - at) * per_second)
        allowed = level >= 1 - _ROUNDING
        self._levels[key] = (max(0.0, level - 1) if allowed else level, now)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (1 - level) / per_second
