"""A command whose exec hangs is STARTING, and obeys its caller all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.spool import StartRecord
from tests.hanging import Hanging, hanging_directory
from tests.rpc.calls import ended, listed, poll, refused, request
from tests.rpc.test_signal import cancel, signal
from tests.servers import Server
from tests.waiting import eventually


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    with hanging_directory(tmp_path / "hanging") as hanging:
        yield hanging


@pytest.fixture
def there(tmp_path: Path, hanging: Hanging) -> Iterator[Server]:
    """Provide a server whose commands get into the directory."""
    server = Server(tmp_path / "state", prefix=hanging.prefix, cwd=Path("/"))
    yield server
    server.close()


def hang(server: Server, hanging: Hanging, **fields: object) -> Any:
    """Calls Exec, and returns when the command's process hangs; the call goes on."""
    call = server.stub.Exec.future(
        request("sh", "-c", "exit 7", exec_id="h", working_directory=str(hanging.directory), **fields), timeout=120
    )
    hanging.await_victim()
    return call


def state(server: Server) -> int:
    return poll(server, "h").execution.state


def test_s10_cancel_ends_it_and_the_exec_that_waits(there: Server, hanging: Hanging) -> None:
    """S10: meanwhile Poll and List tell its state, Delete refuses; after Cancel Exec returns its end."""
    call = hang(there, hanging)
    assert state(there) == pb.STATE_STARTING
    assert listed(there) == ["h"]
    refused(lambda: there.stub.Delete(api.DeleteRequest(exec_id="h")), "FAILED_PRECONDITION")
    cancel(there, "h", grace=0.2)
    execution = call.result().execution
    assert (execution.reason, execution.WhichOneof("exit_status")) == (pb.REASON_CANCELLED, "signal")
    assert execution == poll(there, "h").execution


def test_s10_its_timeout_ends_it(there: Server, hanging: Hanging) -> None:
    """S10: its timeout runs from the release on."""
    call = hang(there, hanging, timeout=0.4, kill_grace=0.1)
    assert call.result().execution.reason == pb.REASON_TIMED_OUT


def test_s10_a_signal_reaches_it(there: Server, hanging: Hanging) -> None:
    """S10: it dies of a signal as a program without handlers does."""
    call = hang(there, hanging)
    signal(there, "h", 10)
    execution = call.result().execution
    assert (execution.reason, execution.signal) == (pb.REASON_CANCELLED, 10)


@pytest.mark.parametrize("who", ["server", "runner", "shim", "all"])
def test_s10_it_goes_on_after_a_restart(there: Server, hanging: Hanging, who: str) -> None:
    """S10: whichever process is killed meanwhile, it stays STARTING, and runs once its directory answers."""
    call = hang(there, hanging)
    start = StartRecord.from_bytes(next(there.state_dir.glob("spool/*/start")).read_bytes())
    if who in ("runner", "all"):
        there.kill_runner()
    if who in ("shim", "all"):
        os.kill(start.shim_pid, SIGKILL)
    if who in ("server", "all"):
        there.restart()
        call.cancel()
    assert state(there) == pb.STATE_STARTING
    hanging.answer()
    execution = ended(there, "h")
    assert (execution.state, execution.exit_code) == (pb.STATE_FAILED, 7)
    if who in ("runner", "shim"):
        assert call.result().execution.exec_id == "h"


def test_s10_it_is_cancelled_after_a_restart(there: Server, hanging: Hanging) -> None:
    """S10: so it is ended, too."""
    call = hang(there, hanging)
    there.restart()
    call.cancel()
    eventually(lambda: state(there) == pb.STATE_STARTING)
    cancel(there, "h", grace=0.2)
    assert ended(there, "h").reason == pb.REASON_CANCELLED
