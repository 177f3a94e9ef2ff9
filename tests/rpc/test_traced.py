"""A command that has itself traced is, to its caller, one like any other."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import ended, listed, poll, start
from tests.rpc.test_signal import cancel, signal
from tests.runner.tracing import FOREVER, name, program, state
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
STOPPED: dict[str, Callable[[int], bool]] = {
    "exec": lambda pid: name(pid) == "sleep",
    "stop": lambda pid: state(pid) in "tT",
    "first thread ended": lambda pid: state(pid) == "Z",
}


@pytest.mark.parametrize("how", STOPPED)
def test_s1_it_runs_until_it_is_ended(server: Server, how: str) -> None:
    """S1: while it is stopped it is RUNNING; Signal and Cancel are answered and end it, and Delete forgets it then."""
    execution = start(server, sys.executable, "-c", program(FOREVER[how]), exec_id="x")
    eventually(lambda: STOPPED[how](execution.pid))
    signal(server, "x", 18)  # SIGCONT: it is there to get it
    assert poll(server, "x").execution.state == pb.STATE_RUNNING
    cancel(server, "x", grace=0.2)
    execution = ended(server, "x")
    assert (execution.reason, execution.WhichOneof("exit_status")) == (pb.REASON_CANCELLED, "signal")
    server.stub.Delete(api.DeleteRequest(exec_id="x"))
    assert listed(server) == []


def test_s1_a_timeout_ends_it(server: Server) -> None:
    """S1: so does its timeout."""
    start(server, sys.executable, "-c", program(FOREVER["stop"]), exec_id="t", timeout=0.5, kill_grace=0.2)
    assert ended(server, "t").reason == pb.REASON_TIMED_OUT
