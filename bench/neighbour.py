"""Another caller's calls, timed beside those of a server that does nothing: the same client, in the same moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from bench.candidates import noop
from bench.candidates.rexec import CHANNEL_OPTIONS
from bench.verify import Wrong

# In --dev; in production its certificate says who it is.
METADATA = (("authorization", "Bearer neighbour"),)
RUNS, STARTS = ["/bin/sleep", "3600"], ["/bin/true"]
# A call that takes longer has failed, in seconds.
DEADLINE = 60
NOOP, POLL, EXEC = "no-op", "Poll", "Exec"
# Of the calls, how many polls come between two starts.
POLLS = 4
# Between two rounds of calls, in seconds: the neighbour is not a load itself.
PAUSE = 0.01

Times = dict[str, list[float]]
Metadata = tuple[tuple[str, str], ...]


class Neighbour:
    """One caller with a command that runs, and connections to both servers."""

    def __init__(self, rexec: grpc.Channel, noop_channel: grpc.Channel, metadata: Metadata) -> None:
        self._metadata = metadata
        self._stub = api_grpc.ExecutionServiceStub(rexec)
        self._noop = noop_channel.unary_unary(noop.METHOD)
        reply = self._stub.Exec(api.ExecRequest(arguments=RUNS), metadata=metadata, timeout=DEADLINE)
        self._exec_id = reply.execution.exec_id

    def measure(self, seconds: float, least: int) -> Times:
        """Return the seconds that calls take, for this long, and for at least so many rounds of them."""
        times: Times = {NOOP: [], POLL: [], EXEC: []}
        deadline = time.monotonic() + seconds
        rounds = 0
        while rounds < least or time.monotonic() < deadline:
            for _ in range(POLLS):
                _timed(times[NOOP], lambda: self._noop(b"", timeout=DEADLINE))
                _timed(times[POLL], self._poll)
                time.sleep(PAUSE)
            _timed(times[EXEC], self._exec)
            rounds += 1
        return times

    def leave(self) -> None:
        request = api.CancelRequest(exec_id=self._exec_id)
        request.kill_grace.FromSeconds(0)
        self._stub.Cancel(request, metadata=self._metadata, timeout=DEADLINE)

    def _poll(self) -> None:
        reply = self._stub.Poll(api.PollRequest(exec_id=self._exec_id), metadata=self._metadata, timeout=DEADLINE)
        if reply.eof or not reply.execution.pid:
            raise Wrong("the neighbour's command does not run")

    def _exec(self) -> None:
        reply = self._stub.Exec(api.ExecRequest(arguments=STARTS), metadata=self._metadata, timeout=DEADLINE)
        if not reply.execution.pid:
            raise Wrong(f"the neighbour's start came to {reply.execution}")


@contextmanager
def neighbour(rexec: grpc.Channel, noop_target: str, metadata: Metadata = METADATA) -> Iterator[Neighbour]:
    """Call as a neighbour. metadata: says who it is, if its connection does not."""
    with rexec, grpc.insecure_channel(noop_target, options=CHANNEL_OPTIONS) as idle:
        found = Neighbour(rexec, idle, metadata)
        try:
            yield found
        finally:
            found.leave()


def _timed(times: list[float], call: Callable[[], object]) -> None:
    begun = time.perf_counter()
    call()
    times.append(time.perf_counter() - begun)
