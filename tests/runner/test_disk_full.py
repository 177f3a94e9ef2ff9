"""Row 11: a full disk under the spool is nothing that a command sees, and costs neither status nor honesty."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rexec_server.core.spool import LOCK, Channel, Reason, Waiting
from tests.runner.harness import Run, Runner, runs
from tests.waiting import eventually

DISK = 2 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield path
    eventually(lambda: subprocess.run(["umount", str(path)], capture_output=True).returncode == 0)


@pytest.fixture
def small(disk: Path, start_runner: Callable[..., Runner]) -> Iterator[Runner]:
    """A runner whose spool is on the small disk."""
    runner = start_runner("--no-cgroup", state_dir=disk / "state")
    yield runner
    runner.close()


def fill(disk: Path) -> Path:
    """Takes all the room that is left."""
    path = disk / "ballast"
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return path


def writer(runner: Runner, size: int, after: str = "exit 5") -> Run:
    """Waits for a line of input, then writes a pattern, then tells through its own file that it is done."""
    script = f"read go; i=0; seq 1 10000000 | head -c {size}; echo tail >&2; {after}"
    return runner.sh(script, stdin_mode=3)


def expected(size: int) -> bytes:
    return b"".join(b"%d\n" % i for i in range(1, size // 6 + 30_000))[:size]


@pytest.mark.parametrize("killed", [False, True], ids=["shim lives", "shim killed"])
def test_row_11_a_command_waits_for_space_and_loses_nothing(small: Runner, disk: Path, killed: bool) -> None:
    """Failure 11: it blocks while the disk is full, and when there is space again each byte and its status come."""
    run = writer(small, 500_000)
    ballast = fill(disk)
    run.stdin(0, b"go\n")
    _blocked(run)
    if killed:
        run.kill_shim()
        eventually(lambda: run.tell("attend"))
    assert run.exit is None
    ballast.unlink()
    record = run.wait()
    assert (record.exit_code, record.reason, record.stdout_bytes) == (5, Reason.EXITED, 500_000)
    assert run.output() == expected(500_000)
    assert run.output(Channel.STDERR) == b"tail\n"


def test_row_11_cancel_while_full_gives_an_exact_gap(small: Runner, disk: Path) -> None:
    """Failure 11: a cancelled command ends on a full disk, with a record, and what could not be kept is counted."""
    run = writer(small, 500_000)
    ballast = fill(disk)
    run.stdin(0, b"go\n")
    _blocked(run)
    run.end(grace=0.2)
    record = run.wait()
    assert record.reason == Reason.CANCELLED
    assert os.statvfs(disk).f_bavail == 0
    kept = run.output()
    assert expected(500_000).startswith(kept)
    extent = run.reader.extent(record)
    assert extent.produced[0] - extent.dropped[0] == len(kept)
    assert extent.dropped[0] > 0
    ballast.unlink()


def test_row_11_an_end_on_a_full_disk_is_recorded(small: Runner, disk: Path) -> None:
    """Failure 11: the exit record has its room from the start, and the status in it is the true one."""
    silent = [small.sh(f"read go; exit {i}", stdin_mode=3) for i in range(5)]
    killed = small.run("sleep", "300")
    ballast = fill(disk)
    for run in silent:
        run.stdin(0, b"go\n")
    os.kill(killed.pid, signal.SIGKILL)
    assert [run.wait().exit_code for run in silent] == [0, 1, 2, 3, 4]
    assert killed.wait().signal == signal.SIGKILL
    assert os.statvfs(disk).f_bavail == 0
    ballast.unlink()


def test_row_11_a_command_that_ended_waits_for_space_for_its_last_bytes(small: Runner, disk: Path) -> None:
    """Failure 11: what it wrote before its exit is owed; whoever gives that up is told how much it was."""
    owed, given_up = (small.sh("read go; echo 12345; exit 4", stdin_mode=3) for _ in range(2))
    ballast = fill(disk)
    for run in (owed, given_up):
        run.stdin(0, b"go\n")
        eventually(lambda run=run: not runs(run.pid))
    given_up.end()
    record = given_up.wait()
    assert (record.exit_code, record.reason, record.stdout_bytes) == (4, Reason.EXITED, 6)
    assert given_up.reader.extent(record).dropped == (6, 0)
    assert owed.exit is None
    ballast.unlink()
    assert (owed.wait().exit_code, owed.output()) == (4, b"12345\n")


def test_row_11_a_start_on_a_full_disk_is_a_failure_to_start(small: Runner, disk: Path) -> None:
    """Failure 11: it is told with its errno; the runner goes on, and the next start has space again."""
    ballast = fill(disk)
    for mode in (1, 3):
        answer = small.run("true", stdin_mode=mode).answer
        assert answer.get("start_error", [""])[0] == "ENOSPC", answer
    ballast.unlink()
    assert small.run("true").wait().exit_code == 0


def test_row_11_a_shim_killed_at_the_start_on_a_full_disk(small: Runner, disk: Path) -> None:
    """Failure 11: nothing that dies on a full disk brings the runner down."""
    started = [small.run("sleep", "300") for _ in range(5)]
    ballast = fill(disk)
    for run in started:
        run.kill_shim()
    for run in started:
        eventually(lambda run=run: run.end(grace=0) is not None)
        assert run.wait().reason == Reason.CANCELLED
    assert small.ask("info")["pid"] == small.pid
    ballast.unlink()


def _blocked(run: Run) -> None:
    """Wait until the command is stuck in its write: its supervisor says so, and it is alive."""
    eventually(lambda: (run.directory / LOCK).read_bytes()[:1] == Waiting.DISK.value)
    assert runs(run.pid)
