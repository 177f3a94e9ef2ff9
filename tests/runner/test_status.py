"""How commands end, and who says so: exit codes, signals, limits of time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest

from rexec_server.core.spool import Channel, Reason
from tests.runner.harness import Runner, runs
from tests.waiting import eventually


@pytest.mark.parametrize("code", [0, 1, 7, 127, 137, 255])
def test_an_exit_code_is_an_exit_code(runner: Runner, code: int) -> None:
    """No exit code is taken for a signal or for a failure to start."""
    record = runner.sh(f"exit {code}").wait()
    assert (record.reason, record.exit_code, record.signal) == (Reason.EXITED, code, None)
    assert record.start_error is record.lost is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_is_a_signal(runner: Runner, number: int) -> None:
    """A command that dies by a signal of its own is SIGNALED, without an exit code."""
    record = runner.sh(f"kill -{int(number)} $$").wait()
    assert (record.reason, record.exit_code, record.signal) == (Reason.SIGNALED, None, number)


def test_row_02_sigchld_ignored_by_who_starts_the_runner(start_runner: Callable[..., Runner]) -> None:
    """Failure 2: an inherited SIG_IGN makes the kernel throw statuses away, and would turn 7 into 0."""
    runner = start_runner("--no-cgroup", prefix=("sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"))
    assert runner.sh("exit 7").wait().exit_code == 7
    run = runner.sh("sleep 0.3; exit 8")
    run.kill_shim()
    assert run.wait().exit_code == 8


def test_row_07_each_short_command_has_its_bytes_and_its_code(runner: Runner) -> None:
    """Failure 7: the end never overtakes the last byte, over hundreds of commands."""
    started = [(i % 256, runner.send("sh", "-c", f"printf x{i}; exit {i % 256}")) for i in range(300)]
    for i, (code, run) in enumerate(started):
        record = run.wait(within=60)
        assert (record.exit_code, record.stdout_bytes, record.output_complete) == (code, len(f"x{i}"), True)
        assert run.output() == f"x{i}".encode()


def test_usage_is_what_the_command_used(runner: Runner) -> None:
    """CPU time and peak memory are those of the command."""
    usage = runner.python("x = bytearray(50_000_000)\nfor _ in range(2_000_000): pass").wait().usage
    assert usage is not None
    assert 0.02 < usage.user_cpu + usage.system_cpu < 20
    assert 50_000_000 < usage.max_rss_bytes < 200_000_000


def test_a_timeout_terms_and_says_so(any_runner: Runner) -> None:
    """TERM at the timeout; a command that obeys is TIMED_OUT with the status that it really had."""
    record = any_runner.run("sleep", "60", timeout=0.1).wait()
    assert (record.reason, record.signal) == (Reason.TIMED_OUT, signal.SIGTERM)


def test_a_timeout_kills_who_ignores_term(any_runner: Runner) -> None:
    """After the grace it is KILL."""
    record = any_runner.sh("trap '' TERM; sleep 60 & wait; sleep 60", timeout=0.2, kill_grace=0.2).wait()
    assert (record.reason, record.signal) == (Reason.TIMED_OUT, signal.SIGKILL)


def test_a_command_that_handles_term_keeps_its_exit_code(runner: Runner) -> None:
    """Whoever ended it, the exit status is the command's own."""
    run = runner.sh("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done")
    eventually(run.output)
    run.end(grace=5)
    record = run.wait()
    assert (record.reason, record.exit_code, run.output()) == (Reason.CANCELLED, 5, b"up\nbye\n")


def test_a_second_end_only_shortens_the_grace(runner: Runner) -> None:
    """A caller who loses patience is heard; the first reason stands."""
    run = runner.sh("trap '' TERM; echo up; while :; do sleep 0.02; done")
    eventually(run.output)
    run.end(Reason.CANCELLED, grace=60)
    run.end(Reason.SERVER_SHUTDOWN, grace=120)
    assert run.exit is None
    run.end(Reason.SERVER_SHUTDOWN, grace=0)
    record = run.wait()
    assert (record.reason, record.signal) == (Reason.CANCELLED, signal.SIGKILL)


def test_a_stopped_process_is_ended_too(any_runner: Runner) -> None:
    """TERM reaches a stopped command because it is continued."""
    run = any_runner.sh("trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done")
    eventually(run.output)
    run.signal(signal.SIGSTOP, group=True)
    run.end(grace=60)
    assert run.wait(within=40).exit_code == 9


def test_unattended_commands_end_and_attended_ones_do_not(runner: Runner) -> None:
    """The timer begins anew each time that somebody is there."""
    lonely = runner.run("sleep", "60", unattended_timeout=0.3)
    watched = runner.run("sleep", "60", unattended_timeout=5)

    def lonely_ended() -> bool:
        watched.tell("attend")
        return lonely.exit is not None

    eventually(lonely_ended)
    assert lonely.wait().reason == Reason.UNATTENDED
    assert watched.exit is None
    assert watched.wait().reason == Reason.UNATTENDED


def test_a_signal_to_the_leader_is_not_one_to_its_group(runner: Runner) -> None:
    """`group` decides who gets a signal; a death by it is CANCELLED."""
    run = runner.sh("trap 'echo group' USR1; (trap - USR1; sleep 60) & echo $!; wait; wait", leftovers=1)
    child = int(eventually(lambda: run.output().endswith(b"\n") and run.output()))
    assert run.signal(signal.SIGUSR1) == {"number": 1}
    eventually(lambda: b"group" in run.output())
    assert runs(child)
    run.signal(signal.SIGTERM)
    record = run.wait()
    assert (record.reason, record.signal) == (Reason.CANCELLED, signal.SIGTERM)


def test_row_05_a_signal_after_the_end_hits_nothing(runner: Runner) -> None:
    """Failure 5: once it has ended, a pid may be somebody else's: nothing is signalled, and the caller is told."""
    run = runner.sh("(sleep 60) & exit 0", drain_timeout=4)
    eventually(lambda: not runs(run.pid))
    assert run.signal(signal.SIGKILL, group=True)["error"] == "ended"
    assert run.wait().exit_code == 0


def test_stderr_has_its_own_channel(runner: Runner) -> None:
    """Both channels are complete, and told apart."""
    run = runner.python("import os\nfor i in range(500): os.write(1 + i % 2, b'%d\\n' % i)")
    record = run.wait()
    odd = b"".join(b"%d\n" % i for i in range(1, 500, 2))
    even = b"".join(b"%d\n" % i for i in range(0, 500, 2))
    assert (run.output(Channel.STDOUT), run.output(Channel.STDERR)) == (even, odd)
    assert (record.stdout_bytes, record.stderr_bytes) == (len(even), len(odd))


def test_merged_output_keeps_its_order(runner: Runner) -> None:
    """MERGED: one FIFO, so the order of the writes is the order in the log."""
    script = "import os\nfor i in range(2000): os.write(1 + i % 2, b'%d\\n' % i)"
    run = runner.run(sys.executable, "-c", script, stderr_mode=2)
    record = run.wait()
    assert run.output() == b"".join(b"%d\n" % i for i in range(2000))
    assert record.stderr_bytes == 0
