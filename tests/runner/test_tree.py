"""The whole tree that a command started: ended when it must be, kept when that was asked for, never in the way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from rexec_server.core.launch import Leftovers
from rexec_server.core.spool import Reason
from tests.runner.harness import Run, Runner, runs
from tests.waiting import eventually

# Forks twice, in a session of its own, with streams of its own: nothing but parentage leads to it.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open('/dev/null', os.O_RDWR)
        for fd in (0, 1, 2): os.dup2(null, fd)
        open(sys.argv[1], 'w').write(str(os.getpid()) + '.')
        time.sleep(300)
    os._exit(0)
os.wait()
"""
CHATTY = "(while :; do echo chatter || echo $? >&2; done) & echo $!"


def daemon(runner: Runner, tmp_path: Path, after: str, **fields: object) -> tuple[Run, int]:
    """A command that leaves a daemon, and then does what `after` says."""
    file = tmp_path / "daemon.pid"
    run = runner.python(f"{DAEMON.replace('sys.argv[1]', repr(str(file)))}\n{after}", **fields)
    return run, int(eventually(lambda: file.exists() and file.read_text().endswith(".") and file.read_text())[:-1])


def test_row_03_a_grandchild_that_holds_stdout_hangs_nothing(any_runner: Runner) -> None:
    """Failure 3: completion is the leader's exit; the leftover is counted, and killed."""
    began = time.monotonic()
    run = any_runner.sh("sleep 60 & echo $!; exit 3")
    record = run.wait()
    assert time.monotonic() - began < 40
    assert (record.exit_code, record.leftover_processes, record.output_complete) == (3, 1, False)
    assert not runs(int(run.output()))


def test_row_03_the_leaders_own_bytes_are_exact_while_a_grandchild_spams(runner: Runner) -> None:
    """Failure 3: what the leader wrote is all there, whoever writes beside it."""
    spam = "(while :; do echo spam; done) & seq 1 5000; echo done >&2; exit 4"
    for _ in range(10):
        run = runner.sh(spam, output_bytes=64 << 20)
        assert run.wait().exit_code == 4
        # A spam comes between two writes of seq, which may be in the middle of a number.
        assert run.output().replace(b"spam\n", b"") == b"".join(b"%d\n" % i for i in range(1, 5001))


def test_a_daemon_is_counted_that_became_ours_just_before_the_end(runner: Runner, tmp_path: Path) -> None:
    """The leader's death is seen before the signal that tells of its orphan: the look for leftovers does not wait."""
    go, file = tmp_path / "go", tmp_path / "daemon.pid"
    wait = f"import time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    run = runner.python(f"import os\nprint('up', flush=True)\n{wait}{DAEMON.replace('sys.argv[1]', repr(str(file)))}")
    eventually(run.output)
    run.kill_shim()
    eventually(lambda: psutil.Process(run.pid).ppid() == runner.pid)
    eventually(lambda: run.directory.joinpath("control").exists() and run.signal(signal.SIGCONT) == {"number": 1})
    os.kill(runner.pid, signal.SIGSTOP)
    go.touch()
    eventually(lambda: not runs(run.pid))
    os.kill(runner.pid, signal.SIGCONT)
    assert run.wait().leftover_processes == 1
    daemon_pid = int(file.read_text()[:-1])
    eventually(lambda: not runs(daemon_pid))


def test_row_04_a_daemon_dies_with_the_end(any_runner: Runner, tmp_path: Path) -> None:
    """Failure 4: setsid and a double fork hide nothing from Cancel."""
    run, pid = daemon(any_runner, tmp_path, "time.sleep(300)")
    run.end(grace=5)
    record = run.wait()
    assert (record.reason, record.signal, runs(pid)) == (Reason.CANCELLED, signal.SIGTERM, False)


def test_row_04_a_daemon_that_ignores_term_dies_too(any_runner: Runner, tmp_path: Path) -> None:
    """Failure 4: even one that ignores TERM, at the end of its leader."""
    run, pid = daemon(any_runner, tmp_path, "time.sleep(300)", env={"X": "1"})
    os.kill(pid, signal.SIGSTOP)
    run.end(grace=0.1)
    run.wait()
    assert not runs(pid)


@pytest.mark.parametrize("killed", [False, True], ids=["shim lives", "shim killed"])
def test_row_04_leftovers_kill(any_runner: Runner, tmp_path: Path, killed: bool) -> None:
    """Failure 4: leftovers of a normal exit are counted and killed, by the shim or by the runner after it."""
    run, pid = daemon(any_runner, tmp_path, "time.sleep(1.0); sys.exit(6)")
    if killed:
        run.kill_shim()
    record = run.wait()
    assert (record.exit_code, record.leftover_processes) == (6, 1)
    assert not runs(pid)


@pytest.mark.parametrize("killed", [False, True], ids=["shim lives", "shim killed"])
def test_row_04_a_kept_leftover_that_writes_forever_never_blocks(any_runner: Runner, killed: bool) -> None:
    """Failure 4: KEEP keeps it, the end does not wait for it, and what it writes is thrown away."""
    run = any_runner.sh(f"{CHATTY}; exit 2", leftovers=Leftovers.KEEP)
    record = run.wait()
    assert (record.exit_code, record.reason, record.output_complete) == (2, Reason.EXITED, False)
    assert record.leftover_processes >= 1
    pid = int(run.output().split()[0]) if run.output()[:1].isdigit() else _chatter(any_runner)
    if killed:
        run.kill_shim()
    _goes_on_writing(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: run.files.isdisjoint({"out", "err", "in", "control"}))


def test_row_04_a_kept_leftover_never_blocks_after_everybody_was_killed(any_runner: Runner) -> None:
    """Failure 4: the next runner reads on for a leftover whose shim and runner are dead."""
    run = any_runner.sh(f"{CHATTY} >&2; exit 2", leftovers=Leftovers.KEEP)
    run.wait()
    pid = _chatter(any_runner)
    any_runner.kill()
    run.kill_shim()
    any_runner.begin_process()
    _goes_on_writing(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: run.files.isdisjoint({"out", "err", "in", "control"}))


def test_row_06_a_thousand_orphans_leave_no_zombie(any_runner: Runner) -> None:
    """Failure 6: each orphan is reaped while the command still runs."""
    script = """
import os, time
for _ in range(1000):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(3)
        os._exit(0)
    os.wait()
print('done', flush=True)
time.sleep(300)
"""
    run = any_runner.python(script)
    eventually(run.output, within=60)
    eventually(lambda: not any_runner.zombies())
    run.end()
    assert run.wait().leftover_processes == 0
    eventually(lambda: not any_runner.zombies())


def test_row_05_another_executions_daemon_is_never_killed(runner: Runner, tmp_path: Path) -> None:
    """Failure 5: orphans that reached the runner through one dead shim do not belong to the next."""
    first, pid = daemon(runner, tmp_path, "time.sleep(300)")
    first.kill_shim()
    eventually(lambda: first.tell("attend"))
    second = runner.run("sleep", "300")
    second.kill_shim()
    second.end(grace=0)
    record = second.wait()
    assert (record.reason, record.leftover_processes) == (Reason.CANCELLED, 0)
    assert runs(pid)
    first.end(grace=0)
    first.wait()
    assert not runs(pid)


def test_row_05_a_kept_leftover_is_never_taken_for_anothers(runner: Runner, tmp_path: Path) -> None:
    """Failure 5: what one execution kept is not killed with another that lost its shim."""
    first, pid = daemon(runner, tmp_path, "sys.exit(0)", leftovers=Leftovers.KEEP)
    first.wait()
    eventually(lambda: not runs(first.shim_pid))
    second = runner.run("sleep", "300")
    second.kill_shim()
    second.end(grace=0)
    assert second.wait().leftover_processes == 0
    assert runs(pid)


def _chatter(runner: Runner) -> int:
    """The leftover, found by the runner's mark in its environment."""
    tag = f"REXEC_TEST_STATE={runner.state_dir}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if tag in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return int(pid)
        except OSError:
            continue
    raise AssertionError("no leftover runs")


def _goes_on_writing(pid: int) -> None:
    """It writes much more than a pipe holds."""
    assert runs(pid)
    before = _written(pid)
    eventually(lambda: _written(pid) > before + 300_000, within=60)


def _written(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])
