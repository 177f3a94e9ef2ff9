"""Starting: what a command gets and does not get, and failures that are not its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rexec_server.core.launch import Limits
from rexec_server.core.spool import START, Reason
from tests.runner.harness import TAG, Runner
from tests.waiting import eventually


def start_errno(runner: Runner, *arguments: str, **fields: object) -> str:
    """The name of the error, which answer and record both tell, and nothing else is told."""
    run = runner.run(*arguments, **fields)
    record = run.wait()
    assert record.start_error is not None, record
    assert run.answer["start_error"] == list(record.start_error)
    assert (record.reason, record.exit_code, record.signal) == (Reason.START_FAILED, None, None)
    assert record.start_error.message.startswith("could not ")
    assert run.files.isdisjoint({"out", "err", "in", "control"})
    return record.start_error.errno


def test_a_failing_exec_is_a_failure_to_start(runner: Runner, tmp_path: Path) -> None:
    """ENOENT, EACCES, ENOEXEC, ENOTDIR, E2BIG: by name, and never exit code 127."""
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("not executable")
    script.write_text("no hash bang")
    script.chmod(0o755)
    assert start_errno(runner, "/no/such/program") == "ENOENT"
    assert start_errno(runner, "no-such-program-anywhere") == "ENOENT"
    assert start_errno(runner, str(plain)) == "EACCES"
    assert start_errno(runner, str(tmp_path)) == "EACCES"
    assert start_errno(runner, str(script)) == "ENOEXEC"
    assert start_errno(runner, f"{plain}/program") == "ENOTDIR"
    assert start_errno(runner, "true", "x" * 200_000) == "E2BIG"
    assert start_errno(runner, "true", env={"X": "x" * 200_000}) == "E2BIG"


def test_a_bad_directory_is_a_failure_to_start(runner: Runner, tmp_path: Path) -> None:
    """A directory that is not there, or is none, or has a name longer than a record can hold."""
    (tmp_path / "file").write_text("")
    assert start_errno(runner, "true", working_directory="/no/such/place") == "ENOENT"
    assert start_errno(runner, "true", working_directory=f"{tmp_path}/file") == "ENOTDIR"
    assert start_errno(runner, "true", working_directory="/\U0001f600" * 500) in ("ENOENT", "ENAMETOOLONG")


def test_the_error_is_that_of_the_best_candidate(runner: Runner, tmp_path: Path) -> None:
    """In a PATH of several, one that may not be executed says more than those where it is not."""
    (tmp_path / "tool").write_text("")
    assert start_errno(runner, "tool", env={"PATH": f"/usr/bin:{tmp_path}:/no/where"}) == "EACCES"


def test_limits_that_leave_no_room_for_a_note(runner: Runner) -> None:
    """A failure is told also when the command's own limits forbid to write files."""
    limits = Limits(file_bytes=1, open_files=3)
    assert start_errno(runner, "/no/such/program", limits=limits) == "ENOENT"


def test_127_is_an_exit_code_when_a_shell_says_it(runner: Runner) -> None:
    """A shell that finds nothing has started, and ended with its own code."""
    record = runner.sh("no-such-program-anywhere").wait()
    assert (record.exit_code, record.start_error) == (127, None)


def test_the_start_record_is_there_before_the_exec(runner: Runner) -> None:
    """The first thing that a command can do is to read who it is."""
    script = f"cat {runner.state_dir}/spool/first/{START}; echo; echo $$"
    run = runner.sh(script, name="first")
    run.wait()
    record, pid = run.output().splitlines()
    assert json.loads(record)["pid"] == int(pid)


def test_row_27_a_name_is_claimed_once(runner: Runner) -> None:
    """Failure 27: who asks again for the same execution gets the one that there is."""
    first = runner.run("sleep", "300", name="once")
    again = runner.run("sleep", "300", name="once")
    assert again.answer == {"number": 1, "claimed": True}
    assert again.pid == first.pid


def test_row_27_an_abandoned_name_is_never_started(runner: Runner) -> None:
    """Failure 27: what was given up before it was asked for stays so, also for a request that comes late."""
    instance = runner.ask("info")["instance"]
    runner.ask("abandon", id="late", why="the server died", older_boot=False, runner=instance)
    run = runner.run("true", name="late")
    assert run.answer["claimed"]
    record = run.wait()
    assert record.start_error == ("ECANCELED", "the server died")
    started = runner.run("true", name="early")
    runner.ask("abandon", id="early", why="too late", older_boot=False)
    assert started.wait().exit_code == 0


def test_row_27_an_abandoned_name_is_never_started_when_its_directory_is_gone(runner: Runner) -> None:
    """Failure 27: deleted, or removed by hand: what was refused stays refused."""
    instance = runner.ask("info")["instance"]
    runner.ask("abandon", id="late", why="the server died", older_boot=False, runner=instance)
    runner.ask("remove", id="late")
    assert runner.run("true", name="late").answer["claimed"]
    started = runner.run("true", name="early")
    started.wait()
    runner.ask("remove", id="early")
    assert runner.run("true", name="early").answer["claimed"]


@pytest.mark.parametrize("asked", ["another", "", "restarted", "received"])
def test_only_the_runner_that_was_meant_says_that_it_never_ran(runner: Runner, asked: str) -> None:
    """Any other may have come later, and one that had received the start cannot say it: LOST."""
    instance = runner.ask("info")["instance"]
    if asked == "restarted":
        runner.restart()
    elif asked == "received":
        runner.run("true", name="one").wait()
        runner.ask("remove", id="one")
    else:
        instance = asked
    runner.ask("abandon", id="one", why="the server died", older_boot=False, runner=instance)
    assert runner.existing("one").wait().reason == Reason.LOST


def test_row_14_the_shim_has_no_stdio_of_the_runner(runner: Runner) -> None:
    """Failure 14: nothing of the shim is a pipe or a file of its parent."""
    run = runner.run("sleep", "300")
    assert [os.readlink(f"/proc/{run.shim_pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3


def test_row_21_a_command_has_three_descriptors(start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    """Failure 21: nothing leaks into it, not even what the runner itself was given by mistake."""
    with (tmp_path / "leak").open("w") as leak:
        runner = start_runner("--no-cgroup", pass_fds=(leak.fileno(),))
        for mode in (1, 2, 3):
            script = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
            run = runner.python(script, stdin_mode=mode, initial_stdin=b"x")
            run.wait()
            assert run.output() == b"[0, 1, 2, 3]\n"  # 3 is the listing's own


def test_row_22_signals_are_as_after_login(start_runner: Callable[..., Runner]) -> None:
    """Failure 22: no signal is ignored or blocked, whatever the runner was started with."""
    prefix = ("sh", "-c", "trap '' PIPE USR1 CHLD INT; exec \"$@\"", "sh")
    runner = start_runner("--no-cgroup", prefix=prefix)
    run = runner.run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    run.wait()
    assert {line.split()[1] for line in run.output().splitlines()} == {b"0" * 16}
    assert runner.run("bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}").wait().exit_code == 0
    piped = runner.run("bash", "-c", "yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}")
    assert piped.wait().exit_code == 128 + signal.SIGPIPE


def test_the_oom_score_and_the_descriptor_limit_are_the_users(start_runner: Callable[..., Runner]) -> None:
    """What the runner changes for itself is not handed down."""
    runner = start_runner("--no-cgroup", prefix=("sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh"))
    run = runner.sh("cat /proc/self/oom_score_adj; ulimit -Sn")
    run.wait()
    own = Path("/proc/self/oom_score_adj").read_bytes()
    assert run.output() == own + b"512\n"


def test_environment_directory_and_umask(runner: Runner, tmp_path: Path) -> None:
    """It gets what was asked for, and not what the runner happens to have."""
    script = "import os; print(sorted(os.environ)); print(os.getcwd()); print(oct(os.umask(0)))"
    env = {"A": "ä=\n", "LC_ALL": "C.UTF-8"}
    run = runner.python(script, env=env, working_directory=str(tmp_path), umask=0o077)
    run.wait()
    names = sorted(["A", "LC_ALL", "PATH", TAG])
    assert run.output().decode() == f"{names}\n{tmp_path}\n0o77\n"


def test_a_command_is_a_session_leader(runner: Runner) -> None:
    """It has a session and a group of its own, and no terminal."""
    run = runner.python("import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())")
    run.wait()
    assert run.output() == b"True\n"


@pytest.mark.parametrize(
    ("limits", "script", "number"),
    [
        (Limits(file_bytes=1000), "f = open('/tmp/rexec-limit', 'wb'); f.write(b'x' * 5000); f.close()", None),
        (Limits(cpu_seconds=1), "while True: pass", signal.SIGXCPU),
        (Limits(memory_bytes=300 << 20), "bytearray(1 << 30)", None),
        (Limits(open_files=10), "import os; [os.open('/', 0) for _ in range(10)]", None),
    ],
    ids=["file_bytes", "cpu_seconds", "memory_bytes", "open_files"],
)
def test_limits_hold(runner: Runner, limits: Limits, script: str, number: int | None) -> None:
    """Each limit is the kernel's own, so it fails what the command does, or kills it by its signal."""
    record = runner.python(script, limits=limits).wait(within=60)
    if number is not None:
        # The hard limit is the same, so the kernel may send KILL in the place of XCPU.
        assert record.signal in (number, signal.SIGKILL)
    else:
        assert record.exit_code == 1


def test_a_file_too_large_is_sigxfsz(runner: Runner, tmp_path: Path) -> None:
    """Python ignores SIGXFSZ; a command does not inherit that."""
    run = runner.sh(f"head -c 5000 /dev/zero > {tmp_path}/file", limits=Limits(file_bytes=1000))
    assert run.wait().exit_code == 128 + signal.SIGXFSZ
    own = runner.run("dd", "if=/dev/zero", f"of={tmp_path}/dd", "bs=5000", "count=1", limits=Limits(file_bytes=1000))
    assert own.wait().signal == signal.SIGXFSZ


def test_scripts_that_were_just_written_run(runner: Runner, tmp_path: Path) -> None:
    """Arguments reach a program byte for byte, the empty one too."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport sys; print(sys.argv[1:])")
    program.chmod(0o755)
    run = runner.run(str(program), "", "ä b", "*")
    assert run.wait().exit_code == 0
    eventually(lambda: run.output().decode() == "['', 'ä b', '*']\n")
