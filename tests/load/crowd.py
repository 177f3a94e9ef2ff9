"""A client process that holds many followers: `python -m tests.load.crowd TARGET EXEC_ID FOLLOWERS CONNECTIONS`.

It prints `{"attached": N}` when each follower has its snapshot. Then, for each line of output that all of them have,
`{"seconds": [...]}`: how long after the time that is written in the line each of them had it. A line is the
monotonic clock, in nanoseconds, when the command wrote it; that clock is the same in all processes of a machine.
At the end `{"ended": N, "broken": {...}}`: how many had the execution's end, and how the others failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict

import grpc
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.load.calls import OPTIONS, Stub

# So many attach at the same time.
_DOORS = 64


class Crowd:
    """Counts what its followers tell. Those that have failed are not waited for."""

    def __init__(self, followers: int) -> None:
        self._present = followers
        self._attached = 0
        self._told = False
        self._lines: defaultdict[int, list[float]] = defaultdict(list)
        self._broken: Counter[str] = Counter()
        self._ended = 0
        self._doors = asyncio.Semaphore(_DOORS)

    async def follow(self, stub: Stub, exec_id: str) -> None:
        try:
            async with self._doors:
                messages = aiter(stub.Follow(api.FollowRequest(exec_id=exec_id)))
                await anext(messages)
            self._attached += 1
            self._look()
            async for message in messages:
                self._note(message)
                del message  # the next one may be long in coming
        except grpc.RpcError as error:
            self._broken[f"{error.code().name}: {error.details()}"] += 1
            self._present -= 1
            self._look()

    def close(self) -> None:
        tell(ended=self._ended, broken=self._broken)

    def _note(self, message: api.FollowResponse) -> None:
        now = time.monotonic_ns()
        for chunk in message.output.chunks:
            for written in map(int, chunk.data.split()):
                self._lines[written].append((now - written) / 1e9)
                self._look()
        self._ended += message.HasField("end")

    def _look(self) -> None:
        """Tells what all of them have by now."""
        if not self._told and self._attached >= self._present:
            self._told = True
            tell(attached=self._attached)
        for written in [written for written, seconds in self._lines.items() if len(seconds) >= self._present]:
            tell(seconds=self._lines.pop(written))


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def main(target: str, exec_id: str, followers: int, connections: int) -> None:
    crowd = Crowd(followers)
    channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(connections)]
    stubs: list[Stub] = [api_grpc.ExecutionServiceStub(channel) for channel in channels]  # type: ignore[misc]
    await asyncio.gather(*(crowd.follow(stubs[number % connections], exec_id) for number in range(followers)))
    for channel in channels:
        await channel.close()
    crowd.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
