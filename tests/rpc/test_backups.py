"""An index or a spool that is older than the other, or lost: put back from a copy, as after a mishap."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import ended, joined, listed, output, poll, refused, request, run, start
from tests.runner.harness import runs
from tests.servers import Server
from tests.waiting import eventually

LABELS = {"job": "nightly"}


def save_index(server: Server, copy: Path) -> None:
    with closing(sqlite3.connect(server.state_dir / "index.sqlite")) as db:
        db.execute("VACUUM INTO ?", (str(copy),))


def put_index_back(server: Server, copy: Path | None) -> None:
    for path in server.state_dir.glob("index.sqlite*"):
        path.unlink()
    if copy:
        shutil.copy(copy, server.state_dir / "index.sqlite")


@pytest.mark.parametrize("lost", [False, True])
def test_executions_that_the_index_does_not_know(server: Server, tmp_path: Path, lost: bool) -> None:
    """With the spool whole nothing is LOST: ends, output and what runs are as they were, and the ids stay used."""
    run(server, "echo", "before", exec_id="before")
    save_index(server, tmp_path / "copy")
    order = request("sh", "-c", "echo out; exit 3", exec_id="ended", labels=LABELS, wait=30)
    server.stub.Exec(order, timeout=40)
    run(server, "/no/such/program", exec_id="failed")
    pid = start(server, "sleep", "300", exec_id="runs", exclusive_group="g").pid
    server.kill()
    put_index_back(server, None if lost else tmp_path / "copy")
    server.start()

    assert listed(server) == ["runs", "failed", "ended", "before"]
    execution = ended(server, "ended")
    assert (execution.exit_code, dict(execution.labels), execution.arguments[2]) == (3, LABELS, "echo out; exit 3")
    assert output(server, "ended") == b"out\n"
    assert ended(server, "failed").reason == pb.REASON_START_FAILED
    assert eventually(lambda: poll(server, "runs").execution.pid) == pid
    refused(lambda: start(server, "true", exec_id="x", exclusive_group="g"), "FAILED_PRECONDITION", "BUSY")
    refused(lambda: start(server, "true", exec_id="ended"), "ALREADY_EXISTS")
    if not lost:
        assert server.stub.Exec(order, timeout=40).already_existed
    server.stub.Cancel(api.CancelRequest(exec_id="runs"), timeout=20)
    assert ended(server, "runs").reason == pb.REASON_CANCELLED
    server.restart()
    assert listed(server) == ["runs", "failed", "ended", "before"]


@pytest.mark.parametrize("kept", ["request", "start"])
def test_either_file_names_it(server: Server, kept: str) -> None:
    """One of the two is enough for its id to stay used and its end to be found."""
    pid = start(server, "sh", "-c", "echo out; exec sleep 300", exec_id="one").pid
    directory = server.spool_of(pid)
    server.kill()
    put_index_back(server, None)
    (directory / ("start" if kept == "request" else "request")).unlink()
    server.start()
    assert eventually(lambda: poll(server, "one").execution.state) == pb.STATE_RUNNING
    refused(lambda: start(server, "true", exec_id="one"), "ALREADY_EXISTS")
    server.stub.Cancel(api.CancelRequest(exec_id="one"), timeout=20)
    assert ended(server, "one").reason == pb.REASON_CANCELLED
    assert output(server, "one") == b"out\n"


def test_the_start_record_says_how_to_go_on(server: Server) -> None:
    """With it alone a command still gets its input and waits for its reader, and its result is kept as by default."""
    held = api.OutputLimit(max_bytes=64 * 1024, overflow=api.OVERFLOW_WAIT)
    script = "read line; head -c 1000000 /dev/zero; exit $line"
    start(server, "sh", "-c", script, exec_id="one", output=held, stdin_mode=api.STDIN_MODE_OPEN, retention=5000)
    directory = server.spool_of(poll(server, "one").execution.pid)
    server.kill()
    put_index_back(server, None)
    (directory / "request").unlink()
    server.start()
    piece = api.WriteStdinRequest(exec_id="one", data=b"4\n", eof=True)
    assert server.stub.WriteStdin(piece, timeout=60).stdin.bytes_written == 2
    size, offset = 0, 0
    while True:
        answer = poll(server, "one", offset=offset, holder="me", wait=60)
        assert not answer.skipped_bytes
        size, offset = size + len(joined(answer.chunks)), answer.next_offset
        if answer.eof:
            break
    assert (size, answer.execution.exit_code) == (1_000_000, 4)
    assert answer.execution.expire_time.seconds - answer.execution.end_time.seconds == 86400


def test_what_ran_when_the_copy_was_made(server: Server, tmp_path: Path) -> None:
    """The index says that it runs: the spool knows how it ended, or it is not known when it was deleted since."""
    for exec_id in ("ended", "deleted"):
        start(server, "sleep", "300", exec_id=exec_id)
    eventually(lambda: all(poll(server, one).execution.state == pb.STATE_RUNNING for one in ("ended", "deleted")))
    save_index(server, tmp_path / "copy")
    for exec_id in ("ended", "deleted"):
        server.stub.Cancel(api.CancelRequest(exec_id=exec_id))
        ended(server, exec_id)
    server.stub.Delete(api.DeleteRequest(exec_id="deleted"))
    server.kill()
    put_index_back(server, tmp_path / "copy")
    server.start()
    assert ended(server, "ended").reason == pb.REASON_CANCELLED
    assert ended(server, "deleted").state == pb.STATE_LOST


def test_an_older_spool(server: Server, tmp_path: Path) -> None:
    """The index keeps the ends that it has seen; what ran since and has no directory is LOST, and ended."""
    start(server, "sh", "-c", "echo out; exec sleep 300", exec_id="then")
    server.kill()
    os.kill(server.runner_pid, signal.SIGSTOP)
    subprocess.run(["cp", "-a", server.state_dir / "spool", tmp_path / "copy"], check=True)
    os.kill(server.runner_pid, signal.SIGCONT)
    server.start()
    server.stub.Cancel(api.CancelRequest(exec_id="then"), timeout=20)
    run(server, "sh", "-c", "echo new; exit 4", exec_id="since")
    pid = start(server, "sleep", "300", exec_id="runs").pid
    ended(server, "then")
    server.kill()
    server.kill_runner()
    shutil.rmtree(server.state_dir / "spool")
    shutil.copytree(tmp_path / "copy", server.state_dir / "spool", copy_function=_copy)
    server.start()
    assert ended(server, "then").reason == pb.REASON_CANCELLED
    assert ended(server, "since").exit_code == 4
    answer = poll(server, "since", offset=0)
    assert (answer.skipped_bytes, answer.eof) == (4, True)
    assert ended(server, "runs").state == pb.STATE_LOST
    assert not runs(pid)
    assert run(server, "true", exec_id="next").execution.exit_code == 0


def _copy(source: str, target: str) -> None:
    if Path(source).is_fifo():
        os.mkfifo(target, 0o600)
    elif Path(source).is_file():
        shutil.copy2(source, target)


def test_an_index_of_no_bytes_is_refused(server: Server) -> None:
    """It would forget every id and every used token; one line says what to do."""
    run(server, "true", exec_id="one")
    server.terminate()
    put_index_back(server, None)
    (server.state_dir / "index.sqlite").touch()
    command = [sys.executable, "-m", "rexec_server", "--dev", "--no-gateway", "--listen", "127.0.0.1:0"]
    refused_start = subprocess.run(
        [*command, "--state-dir", str(server.state_dir)], capture_output=True, text=True, timeout=60
    )
    assert refused_start.returncode == os.EX_CONFIG
    assert len(refused_start.stderr.splitlines()) == 1
    assert "is empty" in refused_start.stderr
    (server.state_dir / "index.sqlite").unlink()
    server.start()
    assert listed(server) == ["one"]


def test_an_index_that_is_removed_under_its_server(server: Server) -> None:
    """A start that would be lost is not promised; what runs is seen to its end, and is there after a restart."""
    start(server, "sleep", "300", exec_id="runs")
    put_index_back(server, None)
    refused(lambda: start(server, "true", exec_id="later"), "UNAVAILABLE")
    server.restart()
    server.stub.Cancel(api.CancelRequest(exec_id="runs"), timeout=20)
    assert ended(server, "runs").reason == pb.REASON_CANCELLED
    assert listed(server) == ["runs"]
