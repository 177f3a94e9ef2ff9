"""Runner and shims under a real server: its load, its death and its memory are nothing to them."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable

import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.servers import Server
from tests.waiting import eventually

FINAL = (pb.STATE_SUCCEEDED, pb.STATE_FAILED, pb.STATE_LOST)


def execute(server: Server, script: str, wait: float = 0) -> str:
    request = api.ExecRequest(exec_id=uuid.uuid4().hex, arguments=["sh", "-c", script])
    if wait:
        request.wait.FromMilliseconds(int(wait * 1000))
    server.stub.Exec(request)
    return request.exec_id


def poll(server: Server, exec_id: str) -> pb.Execution:
    return server.stub.Poll(api.PollRequest(exec_id=exec_id), wait_for_ready=True).execution


def ended(server: Server, exec_id: str) -> pb.Execution:
    def look() -> pb.Execution | None:
        execution = poll(server, exec_id)
        return execution if execution.state in FINAL else None

    return eventually(look, within=60)


@pytest.mark.timeout(180)
def test_row_01_no_command_is_lost_under_rpc_load(start_server: Callable[..., Server]) -> None:
    """Failure 1: hundreds of spawns beside busy RPCs: each exit code is 0, and nobody writes to stderr."""
    server = start_server("--max-running", "200", "--log-level", "warning")
    stop = threading.Event()
    busy = execute(server, "seq 1 100000")

    def load() -> None:
        while not stop.is_set():
            server.stub.Poll(api.PollRequest(exec_id=busy))

    threads = [threading.Thread(target=load) for _ in range(4)]
    codes: list[int] = []
    before = server.log

    def spawn() -> None:
        for _ in range(125):
            codes.append(ended(server, execute(server, "exit 0", wait=10)).exit_code)

    spawners = [threading.Thread(target=spawn) for _ in range(4)]
    for thread in [*threads, *spawners]:
        thread.start()
    for thread in spawners:
        thread.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 500
    assert server.log == before
    assert (server.state_dir / "runner.log").read_text() == ""


def test_t_cn_07_a_killed_server_is_nothing_to_its_commands(server: Server) -> None:
    """kill -9 of the server in the middle of 50 commands: each has its exact status and all its bytes."""
    started = [(i, execute(server, f"seq 1 500; sleep 1; seq 501 1000; exit {i}")) for i in range(50)]
    server.restart()
    want = len(b"".join(b"%d\n" % n for n in range(1, 1001)))
    for code, exec_id in started:
        execution = ended(server, exec_id)
        assert (execution.WhichOneof("exit_status"), execution.exit_code) == ("exit_code", code)
        assert [total.bytes_produced for total in execution.totals if total.channel == pb.CHANNEL_STDOUT] == [want]


def test_row_16_the_server_stays_flat_over_a_line_without_end(server: Server) -> None:
    """Failure 16: 200 MB without a newline, followed to the last byte, leave the server's memory flat."""
    ended(server, execute(server, "head -c 20M /dev/zero"))
    process = psutil.Process(server.pid)
    exec_id = execute(server, "head -c 200M /dev/zero")
    got = gone = 0
    before = highest = process.memory_info().rss
    for message in server.stub.Follow(api.FollowRequest(exec_id=exec_id, offset=0)):
        got += sum(len(chunk.data) for chunk in message.output.chunks)
        gone += message.gap.end_offset - message.gap.start_offset
        highest = max(highest, process.memory_info().rss)
    assert got + gone == 200 << 20
    assert highest - before < 64 << 20


def test_the_runner_is_replaced_and_its_shims_go_on(server: Server) -> None:
    """kill -9 of the runner under the server: what runs goes on, and what is started next starts."""
    running = execute(server, "sleep 1; exit 5")
    before = server.runner_pid
    server.kill_runner()
    eventually(lambda: server.runner_pid != before and os.path.exists(f"/proc/{server.runner_pid}"), within=60)
    assert ended(server, execute(server, "exit 6", wait=5)).exit_code == 6
    assert ended(server, running).exit_code == 5
