"""`python -m bench.loads NAME TARGET [ARGUMENT ...]`: begins a load, says `ready`, and goes on until its standard
input ends, or for LONGEST seconds.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from bench.files import raise_limit
from bench.loads import elements, headers, lists, locks, logs, output, starts

Load = Callable[..., AbstractAsyncContextManager[None]]

# No benchmark takes so long, in seconds: a load that was forgotten ends by itself.
LONGEST = 1800
LOADS: dict[str, Load] = {
    "stalled": output.stalled_followers,
    "readers": output.readers,
    "slow-readers": output.slow_readers,
    "starts": starts.flood,
    "elements": elements.flood,
    "logs": logs.every_way,
    "labels": lists.by_labels,
    "headers": headers.flood,
    "held-locks": locks.held,
}


async def main(name: str, target: str, *arguments: str) -> None:
    raise_limit()
    async with LOADS[name](target, *arguments):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    signal.alarm(LONGEST)
    asyncio.run(main(*sys.argv[1:]))
