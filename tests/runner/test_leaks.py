"""Nothing is left: no descriptor, no zombie, no FIFO, no socket, no cgroup."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from rexec_server.core.launch import Leftovers, StdinMode
from tests.runner.harness import Channelled, Runner, runs
from tests.waiting import eventually


def test_two_hundred_executions_leave_nothing(any_runner: Runner) -> None:
    """Descriptors return to the baseline after starts, failed starts, kills and takeovers."""
    any_runner.run("true").wait()
    eventually(lambda: not _children(any_runner))
    baseline = any_runner.fds()
    started = []
    for i in range(40):
        started += [
            any_runner.sh("echo x"),
            any_runner.run("/no/such/program"),
            any_runner.run("cat", stdin_mode=StdinMode.OPEN, timeout=0.2, kill_grace=0),
            any_runner.sh("sleep 300 & exit 1"),
            any_runner.sh("sleep 0.2; echo y", leftovers=Leftovers.KEEP),
        ]
        if i % 2:
            started[-1].kill_shim()
            started[-3].kill_shim()
    for run in started:
        run.wait(within=60)
    eventually(lambda: not _children(any_runner))
    eventually(lambda: any_runner.fds() == baseline)
    for run in started:
        eventually(lambda run=run: run.files.isdisjoint({"out", "err", "in", "control", "exit.tmp", "shim.error"}))
    assert not _cgroups(run.name for run in started)


def test_kept_leftovers_of_an_earlier_runner_leave_nothing(any_runner: Runner) -> None:
    """A leftover that dies while nobody is there is found to be gone."""
    run = any_runner.sh("sleep 300 & echo $!", leftovers=Leftovers.KEEP)
    run.wait()
    pid = int(run.output())
    any_runner.run("true").wait()
    shim = run.shim_pid
    any_runner.kill()
    for victim in (shim, pid):
        os.kill(victim, signal.SIGKILL)
    eventually(lambda: not runs(pid))
    any_runner.begin_process()
    eventually(lambda: run.files.isdisjoint({"out", "err", "in", "control"}))
    baseline = any_runner.fds()
    any_runner.restart()
    eventually(lambda: any_runner.fds() <= baseline)


def test_connections_that_end_leave_nothing(runner: Runner) -> None:
    """Callers who vanish, also within a frame, or talk nonsense cost no descriptor and nobody's service."""
    run = runner.run("sleep", "300")
    eventually(lambda: "control" in run.files)
    paths = (runner.state_dir / "runner.sock", run.directory / "control")
    before = [runner.fds(), len(os.listdir(f"/proc/{run.shim_pid}/fd"))]
    nonsense = (
        b"", b"\0\0", b"\0\0\0\x05{}", b"\xff\xff\xff\xff", b"\0\0\0\x02{]", b"\0\0\0\x02[]", b"\0\0\0\x02{}",
        b'\0\0\0\x0c{"op": "end"}', b'\0\0\0\x0e{"op": "start"}', b'\0\0\0\x0f{"op": "signal"}', b"\0\0\0\x04null",
    )  # fmt: skip
    for path in paths:
        for data in nonsense:
            channel = Channelled(path)
            channel._socket.sendall(data)
            channel.close()
    eventually(lambda: [runner.fds(), len(os.listdir(f"/proc/{run.shim_pid}/fd"))] == before)
    assert run.exit is None
    assert run.start is not None
    assert runs(run.start.shim_pid)


def test_a_removed_execution_is_gone(runner: Runner) -> None:
    """`remove` takes its directory, whatever is in it."""
    run = runner.sh("seq 1 100000")
    run.wait()
    eventually(lambda: not runs(run.shim_pid))
    runner.ask("remove", id=run.name)
    assert not run.directory.exists()


def test_what_is_removed_before_its_shim_is_gone_leaves_nothing(any_runner: Runner) -> None:
    """An execution may be deleted as soon as it has ended; its shim is still there then, and is reaped all the same."""
    any_runner.run("true").wait(within=60)
    eventually(lambda: _is_idle(any_runner))
    baseline = any_runner.fds()
    run = any_runner.sh("sleep 300 & echo $!", leftovers=Leftovers.KEEP)
    run.wait(within=60)
    leftover = int(run.output())
    any_runner.ask("remove", id=run.name)
    os.kill(leftover, signal.SIGKILL)
    eventually(lambda: _is_idle(any_runner))
    eventually(lambda: any_runner.fds() == baseline, within=60)


def _is_idle(runner: Runner) -> bool:
    """True when it has no child, and has let go of all that it supervised."""
    return not (_children(runner) or runner.ask("executions")["names"])


def _children(runner: Runner) -> str:
    return Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text()


def _cgroups(names: Iterable[str]) -> list[str]:
    base = "/sys/fs/cgroup/unified/rexec"
    return [name for name in names if os.path.exists(f"{base}/{name}")]
