"""The machine, as far as a server depends on it: facts that are looked up, and never changed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

from rexec_server.process import prctl
from rexec_server.runner import cgroup

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256
_PR_GET_CHILD_SUBREAPER = 37


class Limit(NamedTuple):
    """A resource limit; None: no limit."""

    soft: int | None
    hard: int | None


class Room(NamedTuple):
    """What is free on a file system for a user who is not root. inodes: None where it has no fixed number of them."""

    free_bytes: int
    inodes: int | None


class Host:
    """This machine. Tests have others, that tell something else."""

    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def python(self) -> tuple[int, int]:
        return sys.version_info[:2]

    @property
    def kernel(self) -> str:
        return platform.release()

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    @property
    def boot_time(self) -> float:
        """When the machine was started, by the clock as it is now; seconds since 1970."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def synchronised(self) -> bool | None:
        """Whether somebody keeps the clock right, as far as the kernel knows; None: it does not tell."""
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # struct timex, all zero: only asks
        state = ctypes.CDLL(None).adjtimex(buffer)
        return None if state < 0 else state != _TIME_ERROR

    def installed(self, package: str) -> str | None:
        """The version of an installed distribution."""
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def requirements(self) -> list[str]:
        """What rexec's own metadata says that it needs, in the form of PEP 508."""
        try:
            return metadata.requires("rexec") or []
        except metadata.PackageNotFoundError:
            return []

    def limit(self, number: int, pid: int = 0) -> Limit:
        """A resource limit of a process, or our own when that one's is not told."""
        try:
            limits = resource.prlimit(pid, number)
        except (PermissionError, ProcessLookupError):
            limits = resource.getrlimit(number)
        return Limit(*(None if value == resource.RLIM_INFINITY else value for value in limits))

    def sysctl(self, name: str) -> int | None:
        """A number below /proc/sys, such as kernel/pid_max."""
        return _number(f"/proc/sys/{name}")

    def missing_calls(self) -> list[str]:
        """What the kernel, or a filter on its calls, does not let us do."""
        tries = {"pidfd_open": _pidfd, "splice": _splice, "memfd_create": _memfd, "the child subreaper": _subreaper}
        return [name for name, attempt in tries.items() if not _works(attempt)]

    def cgroup_mount(self) -> str | None:
        return cgroup.mount_point()

    def delegated_cgroup(self) -> str | None:
        """The directory of our own cgroup, if it was given to us."""
        return cgroup.delegated_path()

    def cgroup_controllers(self, path: str) -> list[str]:
        try:
            with open(f"{path}/cgroup.controllers") as file:
                return file.read().split()
        except OSError:
            return []

    def cgroup_processes(self) -> int | None:
        """How many processes our own cgroup may have; None: no limit, or not known."""
        path = cgroup.own_directory()
        return _number(f"{path}/pids.max") if path else None

    def room(self, path: str) -> Room:
        status = os.statvfs(path)
        return Room(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)

    def filesystem(self, path: str) -> str:
        """Its type, such as ext4."""
        found, longest = "", -1
        real = os.path.realpath(path)
        with open("/proc/self/mounts") as mounts:
            for line in mounts:
                _, point, kind, *_ = line.split()
                point = point.replace("\\040", " ").rstrip("/")
                if (real == point or real.startswith(f"{point}/")) and len(point) >= longest:
                    found, longest = kind, len(point)
        return found

    def lacks(self, directory: str) -> list[str] | None:
        """What files in a directory cannot do there that ours need; None when that cannot be tried.

        Tried with a file without a name, which leaves nothing behind.
        """
        try:
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            tries: dict[str, Callable[[], object]] = {
                "flock": lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
                "fallocate": lambda: os.posix_fallocate(fd, 0, 4096),
                "splice": lambda: _splice(fd),
                "fdatasync": lambda: os.fdatasync(fd),
            }
            return [name for name, attempt in tries.items() if not _works(attempt)]
        finally:
            os.close(fd)

    def holder(self, path: str) -> int | None:
        """The pid of who has a lock (flock) on a file; looked up, since trying would take it for a moment."""
        try:
            inode = os.stat(path).st_ino
        except OSError:
            return None
        with open("/proc/locks") as locks:
            for line in locks:
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                    return int(fields[4])
        return None


def _number(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, AttributeError):
        return False
    return True


def _pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _memfd() -> None:
    os.close(os.memfd_create("doctor"))


def _subreaper() -> None:
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(ctypes.c_int()))


def _splice(target: int | None = None) -> None:
    """Moves a byte from a pipe into a file, or into another pipe."""
    pipes = [*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC)]
    try:
        os.write(pipes[1], b"x")
        os.splice(pipes[0], pipes[3] if target is None else target, 1)
    finally:
        for fd in pipes:
            os.close(fd)
