"""The table of design section 4: what is so where two could differ, a test for each line."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import (
    START_SERVER,
    ended,
    joined,
    launch,
    listed,
    outcome,
    output,
    poll,
    refused,
    request,
    run,
    start,
)
from tests.servers import Server
from tests.waiting import eventually

LINES = "printf 'one\\ntwo\\n'; sleep 0.05; printf 'err\\n' >&2; sleep 0.05; printf 'three\\nfo'"


def test_default_listen() -> None:
    """127.0.0.1:50051, for the server and for the client."""
    from rexec_server.config import Config

    assert Config(dev=True).listen == ("127.0.0.1:50051",)
    assert "[127.0.0.1:50051]" in launch("--help").stdout
    client = Path(__file__).resolve().parents[2] / "rexec_client"
    assert any("127.0.0.1:50051" in path.read_text() for path in client.rglob("*.py"))


def test_default_state_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """/var/lib/rexec for root, the user's state directory for everybody else."""
    from rexec_server.config import Config

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Config(dev=True).state_dir == "/var/lib/rexec"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Config(dev=True).state_dir == str(tmp_path / "rexec")


DIFFERENT: list[dict[str, Any]] = [
    {"working_directory": "/"},
    {"environment_variables": {"A": "1"}},
    {"environment_variables": {"A": "2"}},
    {"stdin_mode": api.STDIN_MODE_BYTES},
    {"stdin_mode": api.STDIN_MODE_BYTES, "initial_stdin": b"1"},
    {"stdin_mode": api.STDIN_MODE_BYTES, "initial_stdin": b"2"},
    {"stderr_mode": api.STDERR_MODE_MERGED},
    *({name: 7} for name in ("timeout", "kill_grace", "drain_timeout", "unattended_timeout", "retention")),
    {"leftovers": api.LEFTOVERS_KEEP},
    {"output": api.OutputLimit(max_bytes=1000)},
    {"output": api.OutputLimit(overflow=api.OVERFLOW_TERMINATE)},
    *({"limits": api.ResourceLimits(**{name: 2**30})} for name in ("memory_bytes", "cpu_seconds", "file_bytes")),
    *({"limits": api.ResourceLimits(**{name: 1000})} for name in ("processes", "open_files")),
    {"labels": {"a": "1"}},
    {"exclusive_group": "g"},
]


def test_request_identity_is_every_field_but_wait_and_text(server: Server) -> None:
    """Each field makes another request; wait, text, and the order of a map do not; unspecified is the default."""
    fields = {"labels": {"b": "1", "a": "1"}}
    run(server, "true", exec_id="id", **fields)
    for other in DIFFERENT:
        refused(lambda other=other: start(server, "true", exec_id="id", **fields | other), "ALREADY_EXISTS")
    refused(lambda: start(server, "true", "", exec_id="id", **fields), "ALREADY_EXISTS")
    refused(lambda: server.stub.Exec(api.ExecRequest(exec_id="id", shell="true", **fields)), "ALREADY_EXISTS")
    for same in ({"wait": 1}, {"text": True}, {"labels": {"a": "1", "b": "1"}}, {"stdin_mode": api.STDIN_MODE_NULL},
                 {"leftovers": api.LEFTOVERS_KILL}, {"output": api.OutputLimit()}):  # fmt: skip
        assert server.stub.Exec(request("true", exec_id="id", **fields | same)).already_existed


def test_identity_tells_arguments_apart(server: Server) -> None:
    """The same characters, cut differently, are another request."""
    run(server, "echo", "a b", exec_id="id")
    for arguments in (("echo", "a", "b"), ("echo a b",), ("echo", "a b", "")):
        refused(lambda arguments=arguments: start(server, *arguments, exec_id="id"), "ALREADY_EXISTS")


def test_leftovers_are_counted_before_they_are_dealt_with(server: Server) -> None:
    """The count is the same for KILL and KEEP."""
    for leftovers in (api.LEFTOVERS_KILL, api.LEFTOVERS_KEEP):
        answer = run(server, "sh", "-c", "sleep 61 & sleep 62 & exit 0", leftovers=leftovers)
        assert answer.execution.leftover_processes == 2
        assert answer.execution.state == pb.STATE_SUCCEEDED


@pytest.mark.parametrize("by", ["cancel", "timeout", "limit"])
def test_cancel_timeouts_and_limits_end_all(server: Server, by: str) -> None:
    """Whatever ends a command ends all of it, also with LEFTOVERS_KEEP."""
    program = "setsid sleep 63 & echo $! >&2; " + ("head -c 5000 /dev/zero; sleep 60" if by == "limit" else "sleep 60")
    start(
        server, "sh", "-c", program, exec_id="all", leftovers=api.LEFTOVERS_KEEP, kill_grace=0.2,
        timeout=0.5 if by == "timeout" else None,
        output=api.OutputLimit(max_bytes=1000, overflow=api.OVERFLOW_TERMINATE if by == "limit" else 0),
    )  # fmt: skip
    if by == "cancel":
        eventually(lambda: poll(server, "all", offset=0).chunks)
        server.stub.Cancel(api.CancelRequest(exec_id="all"))
    execution = ended(server, "all")
    expected = {"cancel": pb.REASON_CANCELLED, "timeout": pb.REASON_TIMED_OUT, "limit": pb.REASON_OUTPUT_LIMIT}
    assert execution.reason == expected[by]
    eventually(lambda: not _sleeping("63"))


def _sleeping(seconds: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", seconds]]


def test_delete_forgets_output_and_record(server: Server) -> None:
    """After Delete every call says NOT_FOUND, List has it not, the spool is gone, and the id is used for 30 days."""
    run(server, "echo", "hi", exec_id="d")
    server.stub.Delete(api.DeleteRequest(exec_id="d"))
    refused(lambda: poll(server, "d"), "NOT_FOUND")
    refused(lambda: server.stub.Cancel(api.CancelRequest(exec_id="d")), "NOT_FOUND")
    refused(lambda: server.stub.Delete(api.DeleteRequest(exec_id="d")), "NOT_FOUND")
    assert not server.stub.List(api.ListRequest()).executions
    assert not any(path.is_dir() for path in (server.state_dir / "spool").iterdir())
    for days, reason in ((29.9, "EXEC_ID_USED"), (0.2, "")):  # that pass before each look
        server.kill()
        with sqlite3.connect(server.state_dir / "index.sqlite") as db:
            db.execute("UPDATE execution SET delete_lived = delete_lived - ?", (int(days * 86400e9),))
        db.close()
        server.start()
        if reason:
            again = request("true", exec_id="d")
            refused(lambda again=again: server.stub.Exec(again, wait_for_ready=True), "FAILED_PRECONDITION", reason)
    eventually(lambda: outcome(lambda: start(server, "true", exec_id="d")) == grpc.StatusCode.OK)  # once it is swept


def test_delete_while_running(server: Server) -> None:
    """What runs cannot be deleted."""
    start(server, "sleep", "60", exec_id="r")
    refused(lambda: server.stub.Delete(api.DeleteRequest(exec_id="r")), "FAILED_PRECONDITION", "STILL_RUNNING")
    assert poll(server, "r").execution.state == pb.STATE_RUNNING


def test_a_tail_of_lines_is_after_the_filter(server: Server) -> None:
    """Lines are counted in what was asked for, and an unfinished last line is one."""
    run(server, "sh", "-c", LINES, exec_id="t")

    def tail(lines: int, *channels: pb.Channel.ValueType, **fields: Any) -> bytes:
        return joined(poll(server, "t", tail_lines=lines, channels=channels, **fields).chunks)

    assert tail(0) == b""
    assert tail(1) == b"fo"
    assert tail(2) == b"three\nfo"
    assert tail(3) == b"err\nthree\nfo"
    assert tail(3, pb.CHANNEL_STDOUT) == b"two\nthree\nfo"
    assert tail(9, pb.CHANNEL_STDERR) == b"err\n"
    assert tail(9) == b"one\ntwo\nerr\nthree\nfo"


def test_a_tail_of_lines_is_within_max_bytes(server: Server) -> None:
    """The newest bytes of the lines, when they are more than an answer may have."""
    run(server, "sh", "-c", LINES, exec_id="t")
    assert joined(poll(server, "t", tail_lines=2, max_bytes=4).chunks) == b"e\nfo"
    run(server, "head", "-c", "3000000", "/dev/zero", exec_id="long")
    answer = poll(server, "long", tail_lines=1)
    assert (answer.eof, len(joined(answer.chunks))) == (True, 2**20)


def test_more_than_max_running(start_server: START_SERVER) -> None:
    """Refused at once with when to come again; a retry of what runs is not refused; a place that is freed is free."""
    server = start_server("--max-running", "2")
    orders = [request("sleep", "60", exec_id=f"e{n}") for n in range(3)]
    for order in orders[:2]:
        server.stub.Exec(order)
    answer = refused(lambda: server.stub.Exec(orders[2]), "RESOURCE_EXHAUSTED")
    assert answer.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    assert answer.details["QuotaFailure"].violations
    assert server.stub.Exec(orders[0]).already_existed
    server.stub.Cancel(api.CancelRequest(exec_id="e0"))
    ended(server, "e0")
    assert not server.stub.Exec(orders[2]).already_existed


def _reserve_and_die(server: Server, order: api.ExecRequest) -> psutil.Process:
    """The runner is stopped, the id reserved, the server killed: whether it was started is open. The runner."""
    run(server, "true")
    runner = psutil.Process(server.runner_pid)
    runner.suspend()
    call = server.stub.Exec.future(order)
    eventually(lambda: order.exec_id in listed(server))
    server.kill()
    call.exception()
    return runner


def test_died_before_the_spawn_and_it_was_not_spawned(server: Server, tmp_path: Path) -> None:
    """The order died with the runner, and no one else can say that it never ran: LOST, and a retry does not run it."""
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs", exec_id="open")
    _reserve_and_die(server, order).kill()
    server.start()
    execution = ended(server, "open")
    assert (execution.state, execution.reason) == (pb.STATE_LOST, pb.REASON_LOST)
    assert server.stub.Exec(order).already_existed
    assert not (tmp_path / "runs").exists()


def test_a_runner_that_dies_over_a_start_is_followed_by_one_that_starts_it(server: Server, tmp_path: Path) -> None:
    """The order died with the runner, and the server lives: the next runner gets it, and it runs once."""
    run(server, "true")
    runner = psutil.Process(server.runner_pid)
    runner.suspend()
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs; exit 3", exec_id="open", wait=50)
    call = server.stub.Exec.future(order, timeout=60)
    eventually(lambda: "open" in listed(server))
    runner.kill()
    assert call.result().execution.exit_code == 3
    assert (tmp_path / "runs").read_text() == "x\n"


def test_died_before_the_spawn_and_the_runner_did_it(server: Server, tmp_path: Path) -> None:
    """The runner went on with the order: it ran once, or, provably, not at all."""
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs; echo hi; exit 3", exec_id="open")
    _reserve_and_die(server, order).resume()
    server.start()
    execution = ended(server, "open")
    assert server.stub.Exec(order).already_existed
    if execution.reason == pb.REASON_START_FAILED:
        assert not (tmp_path / "runs").exists()
    else:
        assert execution.exit_code == 3
        assert output(server, "open") == b"hi\n"
        assert (tmp_path / "runs").read_text() == "x\n"


def test_text_is_utf8_and_output_is_any_bytes(server: Server) -> None:
    """Names of any characters go through as they are; what the command writes is never touched."""
    program = "import os,sys; sys.stdout.buffer.write(os.environb[b'V'] + sys.argv[1].encode() + bytes(range(256)))"
    answer = run(server, sys.executable, "-c", program, "ä€😀 '\"\n", environment_variables={"V": "ü=\t"})
    assert joined(answer.chunks) == "ü=\tä€😀 '\"\n".encode() + bytes(range(256))
    assert answer.execution.arguments[3] == "ä€😀 '\"\n"


def test_a_directory_of_any_name(server: Server, tmp_path: Path) -> None:
    """Paths may have any characters but NUL."""
    directory = tmp_path / "a ü\n'b"
    directory.mkdir()
    answer = run(server, "pwd", exec_id="p", working_directory=str(directory))
    assert joined(answer.chunks).decode() == f"{directory}\n"
    assert refused(lambda: start(server, "a\0"), "INVALID_ARGUMENT").fields == ["arguments[0]"]


@pytest.mark.parametrize("room", range(13))
def test_a_runner_that_has_no_room_fails_the_start(server: Server, room: int) -> None:
    """When the runner cannot prepare a start the execution says so; it does not stay STARTING for ever."""
    run(server, "true")
    runner = psutil.Process(server.runner_pid)
    highest = max(int(fd) for fd in os.listdir(f"/proc/{runner.pid}/fd"))
    soft, hard = runner.rlimit(psutil.RLIMIT_NOFILE)
    # The limit is on a descriptor's number: from 0 on there is no room at all, whatever is free below.
    runner.rlimit(psutil.RLIMIT_NOFILE, (highest + room if room else 0, hard))
    try:
        call = server.stub.Exec.future(request("true", exec_id=f"full-{room}", wait=15), timeout=20)
        assert call.exception() is None, call.exception()
        execution = ended(server, f"full-{room}")
        assert execution.reason in (pb.REASON_START_FAILED, pb.REASON_EXITED)
    finally:
        runner.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    assert run(server, "true", exec_id=f"after-{room}").execution.exit_code == 0


def test_a_runner_that_has_no_room_stays_and_reaps_later(server: Server) -> None:
    """Shims that end while the runner cannot open anything are reaped when it can; it does not die of that."""
    runner = psutil.Process(server.runner_pid)
    soft, hard = runner.rlimit(psutil.RLIMIT_NOFILE)
    for number in range(5):
        assert server.stub.Exec(request("sleep", "0.3", exec_id=f"short-{number}")).execution.pid
    runner.rlimit(psutil.RLIMIT_NOFILE, (0, hard))
    for number in range(5):
        assert ended(server, f"short-{number}").exit_code == 0
    eventually(lambda: any(child.status() == psutil.STATUS_ZOMBIE for child in runner.children()))
    runner.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: not runner.children())
    assert server.runner_pid == runner.pid
