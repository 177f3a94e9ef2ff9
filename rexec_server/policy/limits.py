"""How often each caller may call."""

from __future__ import annotations

from rexec_server.core.errors import RateLimited
from rexec_server.policy.caller import Caller
from rexec_server.policy.rate import Buckets, Rate


class CallLimits:
    """Counts the calls of each caller. `rate` None: as many as they like."""

    def __init__(self, rate: Rate | None) -> None:
        self._buckets = Buckets(rate)

    def take(self, caller: Caller) -> None:
        """RateLimited when the caller has called too often."""
        wait = self._buckets.take(caller.name)
        if wait:
            raise RateLimited(f"calls of {caller.name}", "this caller calls too often", wait)
