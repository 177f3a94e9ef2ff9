"""List with as many labels as it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from rexec.v1 import execution_service_pb2 as api

from bench.loads.caller import METADATA, again_and_again, stubs

AT_ONCE = 4
LABELS = {f"label-{number:02}": f"value-{number}" for number in range(32)}


@asynccontextmanager
async def by_labels(target: str) -> AsyncIterator[None]:
    """Keep asking for lists that find all, and lists that find nothing as the last label is another."""
    async with stubs(target, AT_ONCE) as opened:

        def call(stub: Any, **other: str) -> Callable[[], Awaitable[object]]:
            request = api.ListRequest(page_size=1000, labels=LABELS | other)
            return lambda: stub.List(request, metadata=METADATA)

        calls = [call(stub, **({} if number % 2 else {"label-31": "none"})) for number, stub in enumerate(opened)]
        async with again_and_again(calls):
            yield
