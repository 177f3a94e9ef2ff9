"""Signal, Cancel and the limits that end a command: who is reached, and who is said to have ended it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import alive, duration, ended, follow, output, poll, refused, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


def cancel(server: Server, exec_id: str, grace: float | None = None) -> pb.Execution:
    request = api.CancelRequest(exec_id=exec_id, kill_grace=None if grace is None else duration(grace))
    return server.stub.Cancel(request, timeout=10).execution


def signal(server: Server, exec_id: str, number: int, scope: int = 0) -> None:
    server.stub.Signal(api.SignalRequest(exec_id=exec_id, signal=number, scope=scope), timeout=10)  # type: ignore[arg-type]


def written(path: Path) -> int:
    return int(eventually(lambda: path.read_text() if path.exists() else ""))


def test_signal_reaches_the_group(server: Server) -> None:
    """By default the command's children get it too, and it counts as the caller's."""
    start(server, "sh", "-c", "trap 'echo shell' USR1; sh -c 'trap \"echo child\" USR1; echo on; sleep 9 & wait'; "
          "sleep 0.1", exec_id="g")  # fmt: skip
    shown(server, "g", b"on")
    signal(server, "g", 10)
    execution = ended(server, "g")
    assert sorted(output(server, "g").split()) == [b"child", b"on", b"shell"]
    assert execution.reason == pb.REASON_EXITED


def test_signal_reaches_the_leader_alone(server: Server) -> None:
    """With the scope LEADER the children do not get it."""
    start(server, "sh", "-c", "trap 'echo shell' USR1; sh -c 'trap \"echo child\" USR1; echo on; sleep 0.7'; true",
          exec_id="l")  # fmt: skip
    shown(server, "l", b"on")
    signal(server, "l", 10, api.SIGNAL_SCOPE_LEADER)
    ended(server, "l")
    assert sorted(output(server, "l").split()) == [b"on", b"shell"]


@pytest.mark.parametrize("number", [2, 9, 15])
def test_a_deadly_signal_is_the_callers(server: Server, number: int) -> None:
    """The status has the signal, the reason says that a caller ended it."""
    start(server, "sleep", "60", exec_id="s")
    signal(server, "s", number)
    execution = ended(server, "s")
    assert (execution.signal, execution.reason) == (number, pb.REASON_CANCELLED)


def test_a_signal_to_what_has_ended_is_refused(server: Server) -> None:
    """There is nobody to get it."""
    run(server, "true", exec_id="e")
    refused(lambda: signal(server, "e", 15), "FAILED_PRECONDITION", "ALREADY_ENDED")


@pytest.mark.parametrize("number", [0, -1, 65, 1000, 2**31 - 1])
def test_no_such_signal(server: Server, number: int) -> None:
    """A number that is no signal is named, and reaches nobody."""
    start(server, "sleep", "60", exec_id="s")
    assert refused(lambda: signal(server, "s", number), "INVALID_ARGUMENT").fields == ["signal"]
    assert poll(server, "s").execution.state == pb.STATE_RUNNING


def test_cancel_ends_with_term(server: Server) -> None:
    """The command gets its chance to tidy up, with its own exit code."""
    start(server, "sh", "-c", "trap 'echo bye; exit 5' TERM; echo on; while :; do sleep 0.05; done", exec_id="c")
    shown(server, "c", b"on")
    assert cancel(server, "c").exec_id == "c"
    execution = ended(server, "c")
    assert (execution.exit_code, execution.reason) == (5, pb.REASON_CANCELLED)
    assert output(server, "c", channels=[pb.CHANNEL_STDOUT]) == b"on\nbye\n"


def test_cancel_kills_what_ignores_term(server: Server) -> None:
    """After the grace, not before it, KILL ends what does not listen."""
    start(server, "sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.05; done", exec_id="deaf", kill_grace=90)
    shown(server, "deaf", b"on")
    before = time.monotonic()
    cancel(server, "deaf", grace=0.7)
    execution = ended(server, "deaf")
    assert 0.6 < time.monotonic() - before < 60
    assert (execution.signal, execution.reason) == (9, pb.REASON_CANCELLED)


def test_cancel_is_idempotent(server: Server) -> None:
    """A repetition shortens the grace or does nothing; on an ended execution it changes nothing."""
    start(server, "sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.05; done", exec_id="deaf", kill_grace=60)
    shown(server, "deaf", b"on")
    for grace in (None, 60, 0.1, 60):
        cancel(server, "deaf", grace)
    execution = ended(server, "deaf", within=40)
    assert cancel(server, "deaf") == execution
    run(server, "true", exec_id="done")
    assert cancel(server, "done").reason == pb.REASON_EXITED


def test_cancel_reaches_a_stopped_command(server: Server) -> None:
    """A command that was stopped is ended like any other."""
    start(server, "sleep", "60", exec_id="stopped", kill_grace=60)
    signal(server, "stopped", 19)
    cancel(server, "stopped")
    assert ended(server, "stopped").signal == 15


def test_a_daemon_dies_with_cancel(server: Server, tmp_path: Path) -> None:
    """Double-forked and in a session of its own: what the command started is found."""
    start(server, sys.executable, "-c", DAEMON, str(tmp_path / "pid"), exec_id="d")
    pid = written(tmp_path / "pid")
    assert alive(pid)
    cancel(server, "d", grace=0.3)
    ended(server, "d")
    eventually(lambda: not alive(pid))


def test_leftovers_end_with_the_command_and_are_counted(server: Server) -> None:
    """A background process does not delay the end, is counted, and is gone."""
    before = time.monotonic()
    execution = run(server, "sh", "-c", "sleep 61 & echo $!; exit 3", exec_id="l").execution
    assert time.monotonic() - before < 50
    assert (execution.exit_code, execution.leftover_processes) == (3, 1)
    assert not execution.output_complete
    pid = int(output(server, "l"))
    eventually(lambda: not alive(pid))


def test_kept_leftovers_live_on_and_never_block(server: Server, tmp_path: Path) -> None:
    """A kept process writes as much as it likes after the end; its output is not the execution's."""
    program = f"(sleep 0.5; head -c 5000000 /dev/zero; echo $? > {tmp_path}/done) & echo on"
    execution = run(server, "sh", "-c", program, exec_id="k", leftovers=api.LEFTOVERS_KEEP).execution
    assert execution.leftover_processes >= 1
    assert eventually(lambda: (tmp_path / "done").exists() and (tmp_path / "done").read_text()) == "0\n"
    assert output(server, "k") == b"on\n"
    assert poll(server, "k").execution == execution


def test_a_kept_daemon_dies_with_cancel_all_the_same(server: Server, tmp_path: Path) -> None:
    """LEFTOVERS_KEEP is about the command's own end, not about Cancel."""
    start(
        server, sys.executable, "-c", DAEMON, str(tmp_path / "pid"), exec_id="d", leftovers=api.LEFTOVERS_KEEP,
        kill_grace=0.3,
    )  # fmt: skip
    pid = written(tmp_path / "pid")
    cancel(server, "d")
    ended(server, "d")
    eventually(lambda: not alive(pid))


@pytest.mark.parametrize(("trap", "number"), [("", 15), ("trap '' TERM;", 9)])
def test_timeout(server: Server, trap: str, number: int) -> None:
    """A command that runs too long is ended like a cancelled one, and the reason says why."""
    before = time.monotonic()
    program = f"{trap} while :; do sleep 0.05; done"
    execution = run(server, "sh", "-c", program, timeout=0.5, kill_grace=0.3).execution
    assert time.monotonic() - before > 0.4
    assert (execution.signal, execution.reason, execution.state) == (number, pb.REASON_TIMED_OUT, pb.STATE_FAILED)


def test_a_timeout_holds_whoever_keeps_the_output_open(server: Server) -> None:
    """`sleep 60 &` with a timeout of a second is over long before the sleep is."""
    before = time.monotonic()
    execution = run(server, "sh", "-c", "sleep 60 & wait", timeout=1, kill_grace=0.2).execution
    assert time.monotonic() - before < 50
    assert execution.reason == pb.REASON_TIMED_OUT


def test_unattended(server: Server) -> None:
    """Nobody follows: it is ended after that time, and not before."""
    before = time.monotonic()
    start(server, "sleep", "60", exec_id="alone", unattended_timeout=0.6)
    execution = ended(server, "alone")
    assert time.monotonic() - before > 0.5
    assert execution.reason == pb.REASON_UNATTENDED


def test_a_followed_command_is_attended(own_server: Server) -> None:
    """A follower keeps it alive, also across a restart of the server; when it leaves, the time begins."""
    start(own_server, "sleep", "90", exec_id="watched", unattended_timeout=10)
    for round_ in range(2):
        stream = follow(own_server, "watched", heartbeat_interval=1)
        for _ in range(7):  # twice as many seconds are more than it could be without anybody
            assert not next(stream).HasField("end")
        if round_ == 0:
            own_server.restart()
        stream.cancel()
    before = time.monotonic()
    assert ended(own_server, "watched").reason == pb.REASON_UNATTENDED
    assert 5 < time.monotonic() - before < 60


def test_followers_who_leave_attend_no_more(server: Server) -> None:
    """However many leave, and just when they are asked for: the command is ended when nobody follows."""
    start(server, "sleep", "60", exec_id="left", unattended_timeout=8)
    streams = [follow(server, "left", heartbeat_interval=1) for _ in range(40)]
    for stream in streams:
        assert next(stream).HasField("snapshot")
    for stream in streams:  # a heartbeat comes when the server says that somebody attends: each second
        assert next(stream).HasField("heartbeat")
        stream.cancel()
    assert ended(server, "left", within=40).reason == pb.REASON_UNATTENDED


def test_a_follower_after_a_restart_attends(own_server: Server) -> None:
    """The next server knows that the command wants to be attended."""
    start(own_server, "sleep", "60", exec_id="watched", unattended_timeout=8)
    own_server.restart()
    stream = follow(own_server, "watched", heartbeat_interval=1)
    for _ in range(10):
        assert not next(stream).HasField("end")
    stream.cancel()
    assert ended(own_server, "watched").reason == pb.REASON_UNATTENDED


def test_output_limit_terminates(server: Server) -> None:
    """With TERMINATE the command is ended at its limit; what is kept are the first bytes, and the sums hold."""
    answer = run(
        server, "sh", "-c", "seq 1000000; sleep 60", exec_id="much", kill_grace=1,
        output=api.OutputLimit(max_bytes=10_000, overflow=api.OVERFLOW_TERMINATE),
    )  # fmt: skip
    execution = answer.execution
    assert (execution.reason, execution.state) == (pb.REASON_OUTPUT_LIMIT, pb.STATE_FAILED)
    whole = b"".join(b"%d\n" % i for i in range(1, 10_001))
    assert output(server, "much") == whole[:10_000]
    total = execution.totals[0]
    assert total.bytes_produced - total.bytes_dropped == 10_000
    assert execution.log_end_offset == total.bytes_produced


def test_cpu_limit(server: Server) -> None:
    """A limit of the system ends it by the system's signal, which is no caller's doing."""
    program = "while :; do :; done"
    execution = run(server, "sh", "-c", program, limits=api.ResourceLimits(cpu_seconds=1)).execution
    assert execution.signal in (9, 24)
    assert execution.reason == pb.REASON_SIGNALED
