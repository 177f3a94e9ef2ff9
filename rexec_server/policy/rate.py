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
        self.rate = rate
        self._most = most
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and when it was that

    def take(self, key: str) -> float:
        """Takes one. Returns 0.0, or, when there is none, after how many seconds there will be one."""
        if self.rate is None:
            return 0.0
        level, now = self._level(self.rate, key)
        wait = _wait(self.rate, level)
        self._levels[key] = (level if wait else max(0.0, level - 1), now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return wait

    def wait(self, key: str) -> float:
        """What `take` would return. Takes nothing."""
        return 0.0 if self.rate is None else _wait(self.rate, self._level(self.rate, key)[0])

    def _level(self, rate: Rate, key: str) -> tuple[float, float]:
        """How many there are now, and when that is."""
        now = self._clock()
        level, at = self._levels.get(key, (float(rate.times), now))
        return min(rate.times, level + (now - at) * rate.times / rate.seconds), now


def _wait(rate: Rate, level: float) -> float:
    return 0.0 if level >= 1 - _ROUNDING else (1 - level) * rate.seconds / rate.times
