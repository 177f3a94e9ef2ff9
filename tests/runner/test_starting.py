"""The time between a command's release and its exec, which lasts as long as its directory hangs."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rexec_server.core.spool import Reason
from tests.hanging import Hanging, hanging_directory
from tests.runner.harness import Run, Runner
from tests.runner.tracing import state
from tests.waiting import eventually


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    with hanging_directory(tmp_path / "hanging") as hanging:
        yield hanging


@pytest.fixture(params=["cgroup", "walk"])
def there(request: pytest.FixtureRequest, start_runner: Callable[..., Runner], hanging: Hanging) -> Runner:
    """Provide a runner whose commands get into the directory, once with, once without a cgroup."""
    flags = ("--no-cgroup",) if request.param == "walk" else ()
    return start_runner(*flags, prefix=hanging.prefix, cwd="/")


def hang(runner: Runner, hanging: Hanging, script: str = "exit 7", **fields: object) -> Run:
    """Starts a command whose process hangs on its way to its exec."""
    run = runner.send("sh", "-c", script, working_directory=str(hanging.directory), **fields)
    hanging.await_victim()
    return run


def stop(run: Run, hanging: Hanging) -> None:
    """Stops it there as any process of its user could, and takes the other reason away."""
    os.kill(run.pid, signal.SIGSTOP)
    hanging.answer()
    eventually(lambda: state(run.pid) == "T")


@pytest.mark.parametrize("why", ["hangs", "is stopped"])
def test_s10_cancel_ends_what_has_not_come_to_its_exec(there: Runner, hanging: Hanging, why: str) -> None:
    """S10: Cancel is answered at once, and ends it; the start is answered then."""
    run = hang(there, hanging)
    if why == "is stopped":
        stop(run, hanging)
    assert run.end(grace=0.2) == {"number": 1}
    record = run.wait()
    assert (record.reason, record.exit_code, record.start_error) == (Reason.CANCELLED, None, None)
    assert record.signal in (signal.SIGTERM, signal.SIGKILL)
    assert there.receive()["pid"] == run.pid
    eventually(lambda: there.zombies() == [])
    assert run.files.isdisjoint({"out", "err", "in", "control"})


def test_s10_its_timeout_runs_from_the_release_on(there: Runner, hanging: Hanging) -> None:
    """S10: the timeout ends it, and the reason is the timeout."""
    run = hang(there, hanging, timeout=0.3, kill_grace=0.1)
    assert run.wait().reason == Reason.TIMED_OUT


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL])
def test_s10_signals_reach_it(there: Runner, hanging: Hanging, number: int) -> None:
    """S10: it has no handlers of its own yet, and dies of what kills a program without any."""
    run = hang(there, hanging)
    assert run.signal(number, group=True) == {"number": 1}
    record = run.wait()
    assert (record.reason, record.signal) == (Reason.CANCELLED, number)


def test_s10_what_cannot_be_killed_yet_is_ended_all_the_same(
    start_runner: Callable[..., Runner], hanging: Hanging
) -> None:
    """S10: a process deep in the kernel dies when it comes back; until then no caller waits for it."""
    there = start_runner("--no-cgroup", prefix=hanging.prefix, cwd="/")
    run = hang(there, hanging, f"touch {hanging.directory.parent}/ran")
    hanging.take()
    pid = run.pid
    run.end(grace=0.1)
    record = run.wait()
    assert (record.reason, record.exit_code, record.signal) == (Reason.CANCELLED, None, None)
    assert record.start_error is not None
    assert record.start_error.errno == "ECANCELED"
    assert record.output_complete
    hanging.answer()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not (hanging.directory.parent / "ran").exists()
    eventually(lambda: run.files.isdisjoint({"out", "err", "in", "control"}))


def test_s10_it_goes_on_when_it_may(there: Runner, hanging: Hanging) -> None:
    """A start that took long is a start; one that fails late is a failure to start."""
    run = hang(there, hanging)
    hanging.answer()
    assert there.receive()["pid"] == run.pid
    assert run.wait().exit_code == 7
    late = hang(there, hanging)
    hanging.answer(errno.EIO)
    assert there.receive()["start_error"][0] == "EIO"
    record = late.wait()
    assert (record.reason, record.exit_code, record.usage) == (Reason.START_FAILED, None, None)


@pytest.mark.parametrize("ending", ["cancel", "answer", "error"])
@pytest.mark.parametrize("dead", ["shim", "both"])
def test_s10_its_shim_may_die_meanwhile(there: Runner, hanging: Hanging, dead: str, ending: str) -> None:
    """S10: the runner, or the next one, takes over at once, although the process has its shim's lock until its exec."""
    run = hang(there, hanging)
    if dead == "both":
        there.kill()
    run.kill_shim()
    if dead == "both":
        there.begin_process()
    eventually(lambda: run.tell("attend") == {"number": 1})
    if ending == "cancel":
        run.end(grace=0.1)
        record = run.wait()
        assert (record.reason, record.written_by) == (Reason.CANCELLED, "runner")
    elif ending == "answer":
        hanging.answer()
        record = run.wait()
        assert (record.exit_code, record.written_by) == (7, "runner")
    else:
        hanging.answer(errno.EIO)
        record = run.wait()
        assert record.start_error is not None
        assert (record.reason, record.start_error.errno, record.exit_code) == (Reason.START_FAILED, "EIO", None)
    eventually(lambda: run.files.isdisjoint({"out", "err", "in", "control"}))


def test_s10_a_runner_is_upgraded_meanwhile(there: Runner, hanging: Hanging) -> None:
    """S10: an upgrade does not wait for it; who asked for the start has an answer, and its shim goes on."""
    run = hang(there, hanging)
    os.kill(there.pid, signal.SIGHUP)
    assert there.receive().keys().isdisjoint({"pid", "error", "start_error"})
    eventually(lambda: "becomes version" in there.log)
    assert there.sh("exit 3").wait().exit_code == 3
    hanging.answer()
    assert run.wait().exit_code == 7


class Halting:
    """A runner under strace, whose shims and commands stop at certain system calls before the exec."""

    def __init__(self, start_runner: Callable[..., Runner], directory: Path, calls: str) -> None:
        if not shutil.which("strace"):
            pytest.skip("to stop a process at a system call needs strace")
        self._log = directory / "strace"
        options = ("-e", f"trace={calls}", "-e", f"inject={calls}:signal=STOP")
        self.runner = start_runner("--no-cgroup", prefix=("strace", "-f", "-qq", "-o", str(self._log), *options))

    def await_stops(self, number: int) -> list[int]:
        """Waits for so many stops. Returns the processes that have stopped, the last one last."""

        def look() -> list[int]:
            return [int(line.split()[0]) for line in self._log.read_text().splitlines() if "stopped by" in line]

        return eventually(lambda: look() if len(look()) >= number else [])


def test_s10_it_may_be_stopped_before_all_else(start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    """S10: a process that is stopped at its first steps, before it has waited for its release, is ended too."""
    halting = Halting(start_runner, tmp_path, "setsid")
    run = halting.runner.send("sleep", "300")
    shim, *_ = halting.await_stops(1)
    os.kill(shim, signal.SIGCONT)
    assert halting.await_stops(2)[1] == run.pid
    assert run.end(grace=0.2) == {"number": 1}
    record = run.wait()
    assert (record.reason, record.exit_code, record.start_error) == (Reason.CANCELLED, None, None)


def test_s10_what_was_never_released_is_not_waited_for(start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    """S10: its shim dies before it is on record, and it is stopped: it is ended, and certainly was never executed."""
    halting = Halting(start_runner, tmp_path, "setsid,pidfd_open")
    run = halting.runner.send("touch", str(tmp_path / "ran"))
    shim, *_ = halting.await_stops(1)
    os.kill(shim, signal.SIGCONT)
    command = next(pid for pid in halting.await_stops(3) if pid != shim)
    assert not run.start
    os.kill(shim, signal.SIGKILL)
    record = run.wait()
    assert (record.reason, record.exit_code) == (Reason.START_FAILED, None)
    eventually(lambda: not Path(f"/proc/{command}").exists())
    assert not (tmp_path / "ran").exists()
