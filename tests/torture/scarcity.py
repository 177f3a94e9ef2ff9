"""Taking from a process what it needs more of: descriptors, and process ids. Each gives it back at the end."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def few_descriptors(pid: int, more: int) -> Iterator[None]:
    """It may open so many descriptors more than it has now. OSError when it has gone."""
    has = len(os.listdir(f"/proc/{pid}/fd"))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (has + more, hard))
    try:
        yield
    finally:
        with suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_forks(pid: int) -> Iterator[str]:
    """It cannot fork. Yields why that could not be done: root is bound by a cgroup only, others by their limit."""
    if os.geteuid() == 0:
        yield from _in_small_cgroup(pid)
        return
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
    resource.prlimit(pid, resource.RLIMIT_NPROC, (1, hard))
    try:
        yield ""
    finally:
        with suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NPROC, (soft, hard))


def _in_small_cgroup(pid: int) -> Iterator[str]:
    """In a cgroup of its own that allows one process. Of version 1: version 2 is where the runner itself is at work."""
    home = _pids_cgroup(pid)
    if home is None:
        yield "no pids controller of cgroup v1 is writable here"
        return
    small = home / f"rexec-torture-{os.getpid()}"
    why_not = ""
    try:
        small.mkdir()
        (small / "pids.max").write_text("1")
        (small / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        why_not = f"no cgroup to limit process ids: {error}"
    try:
        yield why_not
    finally:
        _dissolve(small, home)


def _dissolve(small: Path, home: Path) -> None:
    with suppress(OSError):
        (small / "pids.max").write_text("max")
        while members := (small / "cgroup.procs").read_text().split():
            for member in members:
                with suppress(ProcessLookupError):
                    (home / "cgroup.procs").write_text(member)
    with suppress(OSError):
        small.rmdir()


def _pids_cgroup(pid: int) -> Path | None:
    """The directory of its cgroup, where the pids controller of version 1 is mounted and ours to use."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "pids" in controllers.split(","):
                home = Path("/sys/fs/cgroup/pids", path.lstrip("/"))
                return home if os.access(home / "cgroup.procs", os.W_OK) else None
    return None
