"""One caller who asks for much delays another one by little: seen by the order of what happens, not by the clock."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import bearer, start
from tests.servers import Server
from tests.waiting import eventually


def test_callers_take_turns_at_the_runner(own_server: Server) -> None:
    """A caller's start does not wait for all those that another caller asked for before."""
    start(own_server, "true")  # so that there is a runner
    os.kill(own_server.runner_pid, signal.SIGSTOP)
    with ThreadPoolExecutor(41) as pool:
        try:
            greedy = [pool.submit(start, own_server, "true", caller="greedy") for _ in range(40)]
            eventually(lambda: _listed(own_server, "greedy") >= 35)
            modest = pool.submit(start, own_server, "true", caller="modest")
            eventually(lambda: _listed(own_server, "modest") == 1)
        finally:
            os.kill(own_server.runner_pid, signal.SIGCONT)
        came = modest.result().start_time.ToNanoseconds()
        later = [future for future in greedy if future.result().start_time.ToNanoseconds() > came]
    assert len(later) >= 20


def _listed(server: Server, caller: str) -> int:
    return len(server.stub.List(api.ListRequest(), metadata=bearer(caller)).executions)
