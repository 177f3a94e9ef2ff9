"""The rules of the contract about the end and about lost servers: 7, 8, 9 and 10."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, ended, follow, output, poll, request, run, shown, start
from tests.servers import Server
from tests.waiting import eventually


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 137, 143, 255])
def test_rule_07_each_exit_code_is_itself(server: Server, code: int) -> None:
    """No code is taken for a signal or for a failure to start."""
    execution = run(server, "sh", "-c", f"exit {code}").execution
    assert execution.WhichOneof("exit_status") == "exit_code"
    assert execution.exit_code == code
    assert execution.reason == pb.REASON_EXITED
    assert execution.state == (pb.STATE_SUCCEEDED if code == 0 else pb.STATE_FAILED)


@pytest.mark.parametrize("number", [1, 6, 9, 11, 15, 34])
def test_rule_07_each_signal_is_itself(server: Server, number: int) -> None:
    """A command that a signal ends has that signal and no exit code."""
    execution = run(server, "sh", "-c", f"kill -{number} $$").execution
    assert execution.WhichOneof("exit_status") == "signal"
    assert execution.signal == number
    assert execution.reason == pb.REASON_SIGNALED
    assert execution.state == pb.STATE_FAILED


def test_rule_07_nothing_is_said_before_the_end(server: Server) -> None:
    """A running execution has no status, no reason and no end time."""
    execution = start(server, "sleep", "30")
    assert execution.state == pb.STATE_RUNNING
    assert execution.WhichOneof("exit_status") is None
    assert execution.reason == pb.REASON_UNSPECIFIED
    assert not execution.HasField("end_time")
    assert not execution.HasField("expire_time")


def test_rule_07_a_cancelled_command_that_exits_zero_has_not_succeeded(server: Server) -> None:
    """The reason says who ended it; the code is the command's own."""
    start(server, "sh", "-c", "trap 'exit 0' TERM; echo on; while :; do sleep 0.05; done", exec_id="polite")
    shown(server, "polite", b"on")
    server.stub.Cancel(api.CancelRequest(exec_id="polite"))
    execution = ended(server, "polite")
    assert (execution.exit_code, execution.WhichOneof("exit_status")) == (0, "exit_code")
    assert (execution.state, execution.reason) == (pb.STATE_FAILED, pb.REASON_CANCELLED)


def test_rule_08_snapshot_first_end_last_once(server: Server) -> None:
    """A Follow begins with what is and ends with the end, of a running and of an ended execution."""
    start(server, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done", exec_id="f")
    for _ in range(2):
        messages = list(follow(server, "f"))
        kinds = [message.WhichOneof("event") for message in messages]
        assert kinds[0] == "snapshot"
        assert kinds[-1] == "end"
        assert kinds.count("end") == 1
        assert b"".join(c.data for m in messages for c in m.output.chunks) == b"1\n2\n3\n"
        assert messages[-1].end.state == pb.STATE_SUCCEEDED
        assert messages[-1].next_offset == 6


def test_rule_08_a_follow_that_is_cut_has_no_end_and_resumes(start_server: START_SERVER) -> None:
    """Every cut, by a dying server, leaves a resume point at which the rest follows exactly."""
    server = start_server()
    program = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 1.5; seq 5000"
    expected = b"".join(b"line %d\n" % i for i in range(3000)) + b"".join(b"%d\n" % i for i in range(1, 5001))
    start(server, "sh", "-c", program, exec_id="cut")
    data, offset, cuts, end = b"", 0, 0, None
    while end is None:
        with suppress(grpc.RpcError):
            for message in follow(server, "cut", offset=offset):
                data += b"".join(chunk.data for chunk in message.output.chunks)
                offset = message.next_offset
                end = message.end if message.HasField("end") else None
                if cuts < 2 and message.HasField("output"):
                    cuts += 1
                    server.restart()
    assert cuts == 2
    assert data == expected
    assert end.exit_code == 0


def test_rule_09_heartbeats_on_a_silent_follow(server: Server) -> None:
    """Signs of life come at the interval that was asked for, and carry the resume point."""
    start(server, "sh", "-c", "echo on; sleep 30", exec_id="silent")
    times = []
    stream = follow(server, "silent", heartbeat_interval=1)
    for message in stream:
        if message.HasField("heartbeat"):
            assert message.next_offset == 3
            assert abs(message.heartbeat.time.ToSeconds() - time.time()) < 20
            times.append(time.monotonic())
        if len(times) == 3:
            stream.cancel()
            break
    assert all(0.5 < later - sooner < 8 for sooner, later in pairwise(times))  # fifteen, had it not been heard


def test_rule_09_fifteen_seconds_by_default(server: Server) -> None:
    """Without an interval the first sign of life comes after 15 s."""
    start(server, "sleep", "60", exec_id="silent")
    before = time.monotonic()
    stream = follow(server, "silent")
    assert next(m for m in stream if m.HasField("heartbeat"))
    assert 14 < time.monotonic() - before < 30
    stream.cancel()


def test_rule_10_fifty_commands_survive_the_server(server: Server) -> None:
    """kill -9 of the server in the middle of 50 commands: each has its whole output and its own status."""
    for number in range(50):
        program = f"sleep 0.$(({number} % 7)); seq {number} 2000; sleep 0.{number % 9}; echo err >&2; exit {number}"
        server.stub.Exec(request("sh", "-c", program, exec_id=f"c{number}"))
    server.restart()
    for number in range(50):
        execution = ended(server, f"c{number}", within=60)
        assert execution.exit_code == number, execution
        assert execution.reason == pb.REASON_EXITED
        expected = b"".join(b"%d\n" % i for i in range(number, 2001))
        assert output(server, f"c{number}", channels=[pb.CHANNEL_STDOUT]) == expected
        assert output(server, f"c{number}", channels=[pb.CHANNEL_STDERR]) == b"err\n"
        assert execution.output_complete


def test_rule_10_what_ends_without_a_server_is_known_to_the_next(server: Server) -> None:
    """An end that no server saw is as exact as any other: status, reason, output, times."""
    start(server, "sh", "-c", "echo on; sleep 0.3; echo off; kill -9 $$", exec_id="unseen")
    pid = poll(server, "unseen").execution.pid
    server.kill()
    eventually(lambda: not psutil.pid_exists(pid))
    server.start()
    execution = ended(server, "unseen")
    assert (execution.signal, execution.reason) == (9, pb.REASON_SIGNALED)
    assert execution.HasField("expire_time")
    assert output(server, "unseen") == b"on\noff\n"


def test_rule_10_a_timeout_passes_without_a_server(server: Server) -> None:
    """Limits hold while no server runs."""
    start(server, "sleep", "60", exec_id="limited", timeout=0.5)
    pid = poll(server, "limited").execution.pid
    server.kill()
    eventually(lambda: not psutil.pid_exists(pid))
    server.start()
    assert ended(server, "limited").reason == pb.REASON_TIMED_OUT


def test_rule_10_signals_stdin_and_cancel_reach_it_through_the_next_server(server: Server) -> None:
    """A restarted server controls what its predecessor started."""
    start(server, "cat", exec_id="cat", stdin_mode=api.STDIN_MODE_OPEN)
    start(server, "sleep", "60", exec_id="sleep")
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="cat", data=b"one\n"))
    server.restart()
    answer = eventually(
        lambda: server.stub.WriteStdin(api.WriteStdinRequest(exec_id="cat", offset=4, data=b"two\n", eof=True))
    )
    assert answer.stdin.bytes_written == 8
    assert ended(server, "cat").exit_code == 0
    assert output(server, "cat") == b"one\ntwo\n"
    server.stub.Signal(api.SignalRequest(exec_id="sleep", signal=10))
    assert ended(server, "sleep").signal == 10


def test_rule_10_what_cannot_be_known_is_lost(server: Server) -> None:
    """Runner and shim both killed, and the command gone: LOST, said so, with the output there was."""
    start(server, "sh", "-c", "echo on; sleep 60", exec_id="lost")
    shown(server, "lost", b"on\n")
    pid, shim = poll(server, "lost").execution.pid, server.shim_pid("lost")
    runner = psutil.Process(server.runner_pid)
    runner.suspend()
    psutil.Process(shim).kill()
    psutil.Process(pid).kill()
    runner.kill()
    execution = ended(server, "lost")
    if execution.state == pb.STATE_LOST:
        assert execution.reason == pb.REASON_LOST
        assert execution.WhichOneof("exit_status") is None
    else:
        assert execution.signal == 9
    assert output(server, "lost") == b"on\n"
