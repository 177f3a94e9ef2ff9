"""kill -9 of shims, runners and both, at any moment: no byte and no status is lost or invented."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rexec_server.core.launch import Overflow, StdinMode
from rexec_server.core.spool import Channel, Reason
from tests.runner.harness import Run, Runner, runs
from tests.waiting import eventually

# 300 numbered lines on each channel over about a second, and a code of its own.
TALKER = (
    "import os, sys, time\n"
    "for i in range(300):\n"
    "    os.write(1, b'out %d\\n' % i); os.write(2, b'err %d\\n' % i); time.sleep(0.003)\n"
    "os._exit(int(sys.argv[1]))"
)


def talkers(runner: Runner, count: int) -> list[tuple[int, Run]]:
    return [(i * 3 % 200, runner.run(sys.executable, "-c", TALKER, str(i * 3 % 200))) for i in range(count)]


def assert_whole(code: int, run: Run) -> None:
    record = run.wait(within=60)
    assert (record.reason, record.exit_code, record.lost) == (Reason.EXITED, code, None)
    assert_all_bytes(run)


def assert_all_bytes(run: Run) -> None:
    assert run.output(Channel.STDOUT) == b"".join(b"out %d\n" % i for i in range(300))
    assert run.output(Channel.STDERR) == b"".join(b"err %d\n" % i for i in range(300))


def pause(seconds: float) -> None:
    """Lets the others work for a moment; the tests here are about what was under way."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, within=seconds + 60)


def test_row_12_a_command_outlives_its_shim(any_runner: Runner) -> None:
    """Failure 12: no SIGPIPE, no EPIPE, no gap; the runner finishes what the shim began."""
    run = any_runner.python("import os,time\nfor i in range(200): os.write(1, b'%d\\n' % i); time.sleep(0.005)")
    eventually(run.output)
    run.kill_shim()
    record = run.wait()
    assert (record.exit_code, record.written_by, record.output_complete) == (0, "runner", True)
    assert run.output() == b"".join(b"%d\n" % i for i in range(200))


def test_row_13_shims_killed_in_mid_output(any_runner: Runner) -> None:
    """Failure 13: thirty shims die while their commands write; each status and each byte is exact."""
    random.seed(13)
    started = talkers(any_runner, 30)
    for _, run in started:
        pause(random.random() * 0.03)
        run.kill_shim()
    for code, run in started:
        assert_whole(code, run)
    assert {run.wait().written_by for _, run in started} >= {"runner"}


def test_row_13_shims_killed_at_many_moments(runner: Runner) -> None:
    """Failure 13: a shim killed at any point between its fork and its end loses nothing that was done."""
    random.seed(27)
    by_whom = set()
    for i in range(150):
        run = runner.send("sh", "-c", "echo begin; seq 1 2000; exit 9")
        pause(random.random() * 0.02)
        _kill_shim_of(runner, run)
        record = run.wait()
        by_whom.add(record.written_by)
        if record.start_error:
            assert (record.exit_code, record.signal, record.stdout_bytes) == (None, None, 0), i
            continue
        assert (record.reason, record.exit_code, record.lost) == (Reason.EXITED, 9, None), (i, run.directory)
        assert run.output() == b"begin\n" + b"".join(b"%d\n" % n for n in range(1, 2001))
        _receive(runner)
    assert by_whom == {"shim", "runner"}


def test_row_13_a_shim_killed_before_a_failing_exec(runner: Runner) -> None:
    """Failure 13: whatever dies around an exec that fails, nothing looks like the command's own exit or signal."""
    random.seed(5)
    for _ in range(100):
        run = runner.send("/nonexistent/program", working_directory="/")
        pause(random.random() * 0.008)
        _kill_shim_of(runner, run)
        record = run.wait()
        assert (record.reason, record.exit_code, record.signal) == (Reason.START_FAILED, None, None), record


def test_row_13_a_shim_killed_with_a_dead_leader(runner: Runner) -> None:
    """Failure 13: leader dead and shim dead in the same moment is still an exact status."""
    for _ in range(15):
        run = runner.run("sleep", "300")
        os.kill(run.shim_pid, signal.SIGSTOP)
        os.kill(run.pid, signal.SIGUSR1)
        eventually(lambda run=run: not runs(run.pid))
        run.kill_shim()
        record = run.wait()
        assert (record.reason, record.signal, record.lost) == (Reason.SIGNALED, signal.SIGUSR1, None)


def test_row_13_many_shims_killed_at_once_with_their_leaders(runner: Runner) -> None:
    """Failure 13: statuses that reach the runner in one crowd are not mixed up or thrown away."""
    started = [runner.run("sleep", "300") for _ in range(20)]
    for run in started:
        os.kill(run.shim_pid, signal.SIGSTOP)
        os.kill(run.pid, signal.SIGUSR2)
    os.kill(runner.pid, signal.SIGSTOP)
    for run in started:
        run.kill_shim()
    os.kill(runner.pid, signal.SIGCONT)
    for run in started:
        assert run.wait().signal == signal.SIGUSR2


def test_a_runner_killed_is_nobodys_end(runner: Runner) -> None:
    """Shims go on without their runner, and with the next one."""
    started = talkers(runner, 20)
    pause(0.2)
    runner.kill()
    pause(0.2)
    runner.begin_process()
    for code, run in started:
        assert_whole(code, run)
        assert run.wait().written_by == "shim"


@pytest.mark.parametrize("order", ["runner first", "shims first"])
def test_row_26_runner_and_shims_killed(any_runner: Runner, order: str) -> None:
    """Failure 26: exact where the kernel tells a stranger's status (6.15), else LOST; never a guess, never a hang."""
    started = talkers(any_runner, 12)
    pause(0.2)
    shims = [run.shim_pid for _, run in started]
    for victim in [any_runner.pid, *shims] if order == "runner first" else [*shims, any_runner.pid]:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(victim, signal.SIGKILL)
    any_runner.restart()
    for code, run in started:
        record = run.wait()
        assert record.lost or (record.reason, record.exit_code) == (Reason.EXITED, code)
        # A command that ended while nobody held its FIFOs took with it what was in them, and that is said.
        if record.output_complete:
            assert_all_bytes(run)
        assert not runs(run.pid)


def test_row_26_output_that_nobody_held_is_not_called_complete(runner: Runner) -> None:
    """Failure 26: bytes in a FIFO die with the last who holds it; the record does not pretend to have them."""
    for _ in range(10):
        run = runner.sh("read go; echo lost; exit 3", stdin_mode=3)
        pid = run.pid
        os.kill(run.shim_pid, signal.SIGSTOP)
        (run.directory / "in").write_bytes(b"go\n")
        eventually(lambda pid=pid: not runs(pid))
        os.kill(runner.pid, signal.SIGSTOP)
        run.kill_shim()
        runner.restart()
        record = run.wait()
        assert record.lost or record.exit_code == 3
        assert (run.output(), record.output_complete) == (b"", False)


def test_row_26_shims_killed_after_their_runner_was_replaced(any_runner: Runner) -> None:
    """Failure 26: a runner that is not the parent still ends what it finds, with the true status if there is one."""
    started = talkers(any_runner, 12)
    any_runner.restart()
    pause(0.2)
    for _, run in started:
        run.kill_shim()
    exact = 0
    for code, run in started:
        record = run.wait()
        assert record.lost or record.exit_code == code
        exact += not record.lost
        assert_all_bytes(run)
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
        assert exact == len(started)


def test_a_takeover_without_a_free_descriptor_loses_nothing(runner: Runner, tmp_path: Path) -> None:
    """What the runner supervises itself comes to its end on descriptors that it kept back; a start is refused."""
    go = tmp_path / "go"
    run = runner.sh(f"until [ -e {go} ]; do sleep 0.02; done; seq 1000; exit 3")
    run.kill_shim()
    eventually(lambda: run.signal(signal.SIGCONT) == {"number": 1})  # its new supervisor answers
    soft, hard = resource.prlimit(runner.pid, resource.RLIMIT_NOFILE)
    runner.ask("info")  # it has seen that the call above is over, and closed what that had open
    taken = set(map(int, os.listdir(f"/proc/{runner.pid}/fd")))
    resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (min(set(range(1 << 10)) - taken), hard))
    try:
        assert runner.ask(**runner.request("true"))["start_error"][0] == "EMFILE"
        go.touch()
        record = run.wait()
    finally:
        resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert (record.exit_code, record.output_complete) == (3, True)
    assert run.output() == b"".join(b"%d\n" % i for i in range(1, 1001))
    assert runner.run("true").wait().exit_code == 0


def test_a_runner_holds_nothing_of_what_a_shim_has_finished_beside_it(runner: Runner) -> None:
    """A runner that came when nobody wrote any more, before the FIFOs were removed, lets go of them all the same."""
    run = runner.sh("read go; exit 3", stdin_mode=StdinMode.OPEN)
    shim, leader = run.shim_pid, run.pid
    os.kill(shim, signal.SIGSTOP)
    (run.directory / "in").write_bytes(b"go\n")
    eventually(lambda: not runs(leader))
    runner.restart()
    held = runner.fds()
    os.kill(shim, signal.SIGCONT)
    assert run.wait().exit_code == 3
    eventually(lambda: not runs(shim))
    eventually(lambda: runner.fds() <= held - 3)  # its directory and both FIFOs


def test_row_26_a_zombie_leader_and_a_dead_shim_of_another_runner(runner: Runner) -> None:
    """Failure 26: a leader that ended before its shim was killed is exact too: its pidfd was there in time."""
    started = [runner.run("sleep", "300") for _ in range(10)]
    runner.restart()
    for run in started:
        os.kill(run.shim_pid, signal.SIGSTOP)
        os.kill(run.pid, signal.SIGUSR1)
        run.kill_shim()
    records = [run.wait() for run in started]
    assert all(record.lost or record.signal == signal.SIGUSR1 for record in records)
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
        assert [record.signal for record in records] == [signal.SIGUSR1] * 10


def test_row_26_everything_killed_is_said_within_seconds(any_runner: Runner) -> None:
    """Failure 26: no record says "running" for ever once nothing runs."""
    started = [any_runner.run("sleep", "300") for _ in range(10)]
    pids = [run.pid for run in started]
    for pid in [any_runner.pid, *[run.shim_pid for run in started], *pids]:
        os.kill(pid, signal.SIGKILL)
    any_runner.restart()
    for run in started:
        record = run.wait()
        assert record.lost or record.signal == signal.SIGKILL
        assert (record.reason == Reason.LOST) == bool(record.lost)
        assert "exit" in run.files
        assert run.files.isdisjoint({"out", "err", "in", "control"})


def test_the_terms_outlive_the_shim(any_runner: Runner) -> None:
    """Timeout, output limit and a pending kill are kept by whoever takes over."""
    late = any_runner.run("sleep", "300", timeout=1.0)
    talks = any_runner.sh("sleep 0.5; yes", output_bytes=100_000, overflow=Overflow.TERMINATE, kill_grace=0.1)
    stubborn = any_runner.sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
    eventually(stubborn.output)
    stubborn.end(grace=0.7)
    for run in (late, talks, stubborn):
        run.kill_shim()
    assert late.wait().reason == Reason.TIMED_OUT
    assert talks.wait().reason == Reason.OUTPUT_LIMIT
    assert len(talks.output()) == 100_000
    record = stubborn.wait()
    assert (record.reason, record.signal) == (Reason.CANCELLED, signal.SIGKILL)


def test_who_sent_a_signal_outlives_the_shim(any_runner: Runner) -> None:
    """A command that dies of rexec's own signal after its shim was killed is CANCELLED, as if the shim had seen it."""
    waits = "import signal,sys; signal.pthread_sigmask(0, [15]); print('up', flush=True); sys.stdin.read(); "
    run = any_runner.python(waits + "signal.pthread_sigmask(1, [15])", stdin_mode=3)
    eventually(run.output)
    run.signal(signal.SIGTERM)
    run.kill_shim()
    run.stdin(0, eof=True)
    record = run.wait(within=60)
    assert (record.reason, record.signal, record.written_by) == (Reason.CANCELLED, signal.SIGTERM, "runner")


def _kill_shim_of(runner: Runner, run: Run) -> None:
    """Kills the shim wherever it is in its life; found by its name, as its start record may not be there yet."""
    for task in os.listdir(f"/proc/{runner.pid}/task"):
        with open(f"/proc/{runner.pid}/task/{task}/children") as file:
            for pid in map(int, file.read().split()):
                try:
                    with open(f"/proc/{pid}/comm") as comm:
                        name = comm.read().strip()
                except OSError:
                    continue
                if name in (f"shim {run.name}"[:15], "rexec-runner"):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _receive(runner: Runner) -> None:
    assert runner.ask("info")
