"""Names of sockets and of locks that are removed under living programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, ended, output, poll, start
from tests.servers import Server, runner_command
from tests.waiting import eventually


def end_input(server: Server, exec_id: str, data: bytes) -> None:
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id=exec_id, data=data, eof=True), timeout=20)


@pytest.mark.parametrize("at_once", [True, False])
def test_input_ends_although_the_runners_socket_was_removed(server: Server, at_once: bool) -> None:
    """The shim tells the runner by that name; it waits until the name is there again."""
    start(server, "cat", exec_id="c", stdin_mode=api.STDIN_MODE_OPEN)
    runner_socket = server.state_dir / "runner.sock"
    runner_socket.unlink()
    if not at_once:
        eventually(runner_socket.exists)
    end_input(server, "c", b"abc")
    assert ended(server, "c").exit_code == 0
    assert output(server, "c") == b"abc"


@pytest.mark.parametrize("name", ["runner.sock", "runner.pid", "server.pid"])
def test_a_removed_name_is_there_again(server: Server, name: str) -> None:
    """A server that is started next finds the runner that there is, and what runs goes on."""
    start(server, "sh", "-c", "sleep 1; exit 7", exec_id="r")
    runner = server.runner_pid
    (server.state_dir / name).unlink()
    eventually((server.state_dir / name).exists)
    server.restart()
    assert eventually(lambda: server.runner_pid) == runner
    assert ended(server, "r").exit_code == 7


@pytest.mark.parametrize("stopped", [True, False])
def test_no_second_server_without_the_first_ones_file(server: Server, stopped: bool) -> None:
    """The directory itself is locked, also while the first one has no time to make its file anew."""
    process = psutil.Process(server.pid)
    if stopped:
        process.suspend()
    (server.state_dir / "server.pid").unlink()
    command = [sys.executable, "-m", "rexec_server", "--dev", "--no-gateway", "--listen", "127.0.0.1:0"]
    second = subprocess.run(
        [*command, "--state-dir", str(server.state_dir)], capture_output=True, text=True, timeout=60
    )
    process.resume()
    assert (second.returncode, "another rexec-server" in second.stderr) == (os.EX_CONFIG, True)
    eventually((server.state_dir / "server.pid").exists)
    eventually(lambda: (server.state_dir / "server.pid").read_text().strip() == str(server.pid))


def test_no_second_runner_without_the_first_ones_file(server: Server) -> None:
    """Two would both take over what one of them supervises."""
    runner = psutil.Process(server.runner_pid)
    runner.suspend()
    (server.state_dir / "runner.pid").unlink()
    second = subprocess.run(runner_command(server.state_dir), capture_output=True, text=True, timeout=60)
    runner.resume()
    assert (second.returncode, "another runner" in second.stderr) == (os.EX_CONFIG, True)
    eventually((server.state_dir / "runner.pid").exists)
    eventually(lambda: (server.state_dir / "runner.pid").read_text().strip() == str(runner.pid))


@pytest.mark.parametrize("supervisor", ["shim", "runner"])
def test_a_control_socket_that_was_removed(server: Server, supervisor: str) -> None:
    """Signals and Cancel reach the command all the same, whichever process supervises it."""
    pid = start(server, "sh", "-c", "trap 'echo got' USR1; while :; do sleep 0.1; done", exec_id="c").pid
    control = server.spool_of(pid) / "control"
    if supervisor == "runner":
        before = control.stat().st_ctime_ns
        psutil.Process(pid).parent().kill()
        eventually(lambda: control.exists() and control.stat().st_ctime_ns != before)
    for _ in range(2):
        control.unlink()
        server.stub.Signal(api.SignalRequest(exec_id="c", signal=signal.SIGUSR1), timeout=5)
    eventually(lambda: b"got" in b"".join(chunk.data for chunk in poll(server, "c", offset=0).chunks))
    control.unlink()
    server.stub.Cancel(api.CancelRequest(exec_id="c"), timeout=5)
    assert ended(server, "c").reason == pb.REASON_CANCELLED


def test_the_servers_own_socket_is_there_again(start_server: START_SERVER, tmp_path: Path) -> None:
    """The next client finds it; the directory has nothing of it when the server has gone."""
    path = tmp_path / "s" / "rexec.sock"
    path.parent.mkdir()
    server = start_server("--listen", f"unix:{path}")
    path.unlink()
    eventually(path.exists)
    assert _call(path) == 0
    server.restart()
    assert _call(path) == 0
    server.terminate()
    assert list(path.parent.iterdir()) == []


def _call(path: Path) -> int:
    command = [sys.executable, "-m", "rexec_client", "--target", f"unix:{path}", "list"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode
