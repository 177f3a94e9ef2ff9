"""What is left when all has ended: nothing may be."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.torture.plant import Plant
from tests.waiting import eventually

SETTLE_SECONDS = 60.0
# gRPC, SQLite and inotify keep a few open once they were used.
_KEPT_BY_SERVER = 16
_KEPT_BY_RUNNER = 2


class Baseline:
    """How many descriptors server and runner have when nothing runs."""

    def __init__(self, plant: Plant) -> None:
        self.server = len(_open_files(plant.server.pid))
        self.runner = len(_open_files(plant.runner_pid))


def find_leftovers(plant: Plant, baseline: Baseline) -> list[str]:
    """What is still there after a while that should not be; each as a sentence."""
    with suppress(AssertionError):
        eventually(lambda: not list(_look(plant, baseline)), within=SETTLE_SECONDS)
    return list(_look(plant, baseline))


def _look(plant: Plant, baseline: Baseline) -> Iterator[str]:
    for process in plant.tagged():
        yield f"process {process.pid} is left: {_command_line(process.pid)}"
    for pid, name in plant.shims().items():
        yield f"the shim {pid} of {name} is left"
    for directory in filter(Path.is_dir, plant.spool.iterdir()):
        yield from _look_into(directory)
    for name, pid, most in (
        ("runner", plant.runner_pid, baseline.runner + _KEPT_BY_RUNNER),
        ("server", plant.server.pid, baseline.server + _KEPT_BY_SERVER),
    ):
        files = _open_files(pid)
        if len(files) > most:
            yield f"the {name} has {len(files)} descriptors open, {most} at most should be: {' '.join(files)}"


def _look_into(directory: Path) -> Iterator[str]:
    """No FIFO, no socket, and nobody holds the lock."""
    with suppress(FileNotFoundError):
        for file in directory.iterdir():
            mode = file.lstat().st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                yield f"{directory.name}/{file.name} is left"
    with suppress(FileNotFoundError), (directory / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield f"{directory.name}/lock is held"


def _open_files(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sorted(found)


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""
