"""Files of the spool that vanish: what was certain stays so, and what nothing says any more is LOST, at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, ended, follow, poll, refused, request, run, shown, start
from tests.runner.harness import runs
from tests.servers import Server
from tests.waiting import eventually

STAY = "trap '' TERM; setsid sh -c 'sleep 301 >/dev/null </dev/null 2>&1 & exec sleep 302' & exec sleep 303"


def directory_of(server: Server, exec_id: str) -> Path:
    return server.spool_of(poll(server, exec_id).execution.pid)


def assert_lost(server: Server, exec_id: str) -> pb.Execution:
    execution = ended(server, exec_id)
    assert (execution.state, execution.reason) == (pb.STATE_LOST, pb.REASON_LOST), execution
    assert execution.WhichOneof("exit_status") is None
    return execution


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("who", ["server", "runner", "all"])
def test_a_directory_that_vanishes_under_a_dead_server(server: Server, tmp_path: Path, who: str, over: bool) -> None:
    """It ran, and nothing says how it ended: LOST, never "never started"; what survived of it is ended."""
    script = f"touch {tmp_path}/ran; exec sleep {0 if over else 300}"
    pid = start(server, "sh", "-c", script, exec_id="z").pid
    ended(server, "z") if over else eventually((tmp_path / "ran").exists)
    spool = server.state_dir / "spool"
    runner = server.runner_pid
    server.kill()
    if over:
        _unsee(server)
    if who != "server":
        os.kill(runner, signal.SIGKILL)
        eventually(lambda: not runs(runner))
    if who == "all":
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).parent().kill()
    for path in spool.glob("*/"):
        eventually(lambda path=path: _removed(path))
    server.start()
    assert_lost(server, "z")
    assert not runs(pid)
    assert server.stub.Exec(request("sh", "-c", script, exec_id="z")).already_existed


def _unsee(server: Server) -> None:
    """Make it as if the server had died before it saw any end."""
    import sqlite3

    with sqlite3.connect(server.state_dir / "index.sqlite") as db:
        db.execute("UPDATE execution SET state = 2, exit = NULL, extent = NULL, end_time = 0, expire_time = 0")
    db.close()


@pytest.mark.parametrize("away", ["", "runner", "shim", "shim and runner"])
@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_directory_that_vanishes_under_a_live_execution(server: Server, tmp_path: Path, how: str, away: str) -> None:
    """LOST at once; nothing of it survives, its group is free, and it can be deleted."""
    pid = start(server, "sh", "-c", STAY, exec_id="z", exclusive_group="g").pid
    tree = eventually(lambda: _tree_of(pid, 2))
    directory = directory_of(server, "z")
    if "runner" in away:
        server.kill_runner()
    if "shim" in away:
        psutil.Process(pid).parent().kill()
    match how:
        case "removed":
            eventually(lambda: _removed(directory))
        case "moved":
            directory.rename(tmp_path / "elsewhere")
        case "replaced":
            directory.rename(tmp_path / "elsewhere")
            directory.write_text("a file")
    assert_lost(server, "z")
    eventually(lambda: not [process for process in tree if runs(process.pid)])
    server.stub.Cancel(api.CancelRequest(exec_id="z"), timeout=5)
    assert start(server, "true", exec_id="next", exclusive_group="g").exec_id == "next"
    server.stub.Delete(api.DeleteRequest(exec_id="z"), timeout=20)
    refused(lambda: start(server, "true", exec_id="z"), "FAILED_PRECONDITION", "EXEC_ID_USED")


def _tree_of(pid: int, most: int) -> list[psutil.Process]:
    found = [process for process in psutil.Process(pid).children(recursive=True) if process.name() == "sleep"]
    return [psutil.Process(pid), *found] if len(found) >= most else []


def _removed(directory: Path) -> bool:
    """Remove all of it, also what is made there meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def test_cancel_of_an_execution_whose_directory_is_gone(server: Server) -> None:
    """It answers as soon as the end is known."""
    start(server, "sleep", "300", exec_id="z")
    shutil.rmtree(directory_of(server, "z"), ignore_errors=True)
    server.stub.Cancel(api.CancelRequest(exec_id="z"), timeout=5)
    assert_lost(server, "z")


def test_the_others_are_as_before(start_server: START_SERVER) -> None:
    """A spool that loses most of its directories at once: each of those is LOST, and the others go on."""
    server = start_server("--max-running", "100")
    for number in range(30):
        start(server, "sleep", "300", exec_id=f"e{number}")
    kept = {directory_of(server, f"e{number}").name for number in range(3)}
    for path in (server.state_dir / "spool").glob("*/"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for number in range(3, 30):
        assert_lost(server, f"e{number}")
    for number in range(3):
        server.stub.Cancel(api.CancelRequest(exec_id=f"e{number}"))
        assert ended(server, f"e{number}").reason == pb.REASON_CANCELLED


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_whole_spool_that_vanishes(start_server: START_SERVER, how: str) -> None:
    """Executions in it are LOST and ended; another runner makes a new spool, and starts again what is asked for."""
    server = start_server()
    tree = eventually(lambda: _tree_of(start(server, "sh", "-c", STAY, exec_id="z").pid, 2))
    spool, runner = server.state_dir / "spool", server.runner_pid
    if how == "removed":
        shutil.rmtree(spool, ignore_errors=True)
    else:
        spool.rename(server.state_dir / "elsewhere")
    assert_lost(server, "z")
    eventually(lambda: not [process for process in tree if runs(process.pid)])
    eventually(lambda: not runs(runner))
    assert eventually(lambda: start(server, "echo", "hello", exec_id="next")).exec_id == "next"
    assert ended(server, "next").exit_code == 0


def test_a_follower_of_an_execution_that_vanishes(server: Server) -> None:
    """Its stream ends, and what it was told was produced stays so: nothing of it can be read any more."""
    start(server, "sh", "-c", "echo out; echo err >&2; exec sleep 300", exec_id="z")
    shown(server, "z", b"err\n")
    directory = directory_of(server, "z")
    messages = follow(server, "z", offset=0)
    first = next(messages)
    assert first.snapshot.log_end_offset == 8
    shutil.rmtree(directory, ignore_errors=True)
    last = list(messages)[-1]
    assert (last.end.state, last.end.log_end_offset, last.next_offset) == (pb.STATE_LOST, 8, 8)
    answer = poll(server, "z", offset=0)
    assert (answer.skipped_bytes, answer.next_offset, answer.eof) == (8, 8, True)
    assert [(one.bytes_produced, one.bytes_dropped) for one in answer.execution.totals] == [(4, 4), (4, 4)]


def test_a_start_is_not_repeated_when_its_directory_is_gone(server: Server, tmp_path: Path) -> None:
    """The runner dies before it can say that the command runs, and nothing else says it: it is not run twice."""
    run(server, "true")
    runner = psutil.Process(server.runner_pid)
    script = f"kill -STOP {runner.pid}; echo x >> {tmp_path}/runs; exec sleep 300"
    call = server.stub.Exec.future(request("sh", "-c", script, exec_id="z"), timeout=60)
    eventually((tmp_path / "runs").exists)
    pid = eventually(lambda: _started(server))
    runner.suspend()
    poll(server, "z", offset=0, wait=1)  # as long as that; the server has looked for the directory by now
    directory = server.spool_of(pid)
    eventually(lambda: _removed(directory))
    runner.kill()
    call.exception()
    assert_lost(server, "z")
    assert (tmp_path / "runs").read_text() == "x\n"
    assert not runs(pid)


def _started(server: Server) -> int:
    """Return the pid of the one command whose start record is there, and whose end is not."""
    for path in (server.state_dir / "spool").glob("*/start"):
        if not (path.parent / "exit").exists() and (text := path.read_text()):
            return int(json.loads(text)["pid"])
    return 0
