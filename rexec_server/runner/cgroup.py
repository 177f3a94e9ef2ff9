"""A cgroup v2 per execution, where one is delegated to us: an exact list of members, and a kill that misses none."""

from __future__ import annotations

import os
from typing import NamedTuple

from rexec_server.core.launch import Confinement, Limits
from rexec_server.runner import linux

EXECUTIONS = "rexec"
# Where the runner and its shims are: a cgroup with processes of its own may not have controllers for those below.
LEAF = "rexec-runner"
WANTED = ("memory", "pids", "cpu")
# cpu.max is time per period, and the kernel's own period is this.
_PERIOD_US = 100_000


class Delegation(NamedTuple):
    """Where we may make cgroups, and what they can limit there, such as `memory`."""

    base: str
    controllers: tuple[str, ...]

    @classmethod
    def take(cls, path: str) -> Delegation | None:
        """Makes a place for executions in a cgroup that is ours, with what controllers it has; None when it cannot be.

        path: the directory of the runner's own cgroup.
        """
        parent = os.path.dirname(path) if os.path.basename(path) == LEAF else path
        base = f"{parent}/{EXECUTIONS}"
        try:
            os.makedirs(base, exist_ok=True)
        except OSError:
            return None
        if not os.path.exists(f"{base}/cgroup.kill"):
            return None
        return cls(base, _pass_down(parent, path, base))


def find_delegation() -> Delegation | None:
    """What is delegated to us, or None."""
    path = delegated_path()
    return Delegation.take(path) if path else None


def delegated_path() -> str | None:
    """The directory of our own cgroup if it is delegated to us.

    Ours is our own cgroup: when it was given to our user, when its manager marked it as delegated
    (`Delegate=yes` sets user.delegate or trusted.delegate), or when it is the root and we are too.
    """
    path = own_directory()
    if path is None or not os.access(f"{path}/cgroup.procs", os.W_OK):
        return None
    return path if _is_delegated(path) or path == mount_point() else None


def own_directory() -> str | None:
    """The directory of our own cgroup; None without cgroup v2."""
    mount, own = mount_point(), _own_path()
    return os.path.normpath(f"{mount}/{own}") if mount and own else None


def _pass_down(parent: str, own: str, base: str) -> tuple[str, ...]:
    """Gives the wanted controllers of `parent` to the executions' cgroups; returns those that they have now."""
    if own == parent and _is_started_here_again():
        return ()
    there = [name for name in WANTED if name in _read_words(f"{parent}/cgroup.controllers")]
    if not there:
        return ()
    order = " ".join(f"+{name}" for name in there)
    try:
        # The root alone may have both, controllers to pass down and processes.
        if own == parent and os.path.exists(f"{parent}/cgroup.type"):
            os.makedirs(f"{parent}/{LEAF}", exist_ok=True)
            _write(f"{parent}/{LEAF}/cgroup.procs", "0")
        _write(f"{parent}/cgroup.subtree_control", order)
        _write(f"{base}/cgroup.subtree_control", order)
    except OSError:  # others than us are in it, say: what is declared and needs one will not start
        return ()
    return tuple(there)


def _is_started_here_again() -> bool:
    """Whether systemd started us in a cgroup in which it could not start our successor once it passes controllers down.

    It starts a service in the service's own cgroup, or, since systemd 254, in that of DelegateSubgroup=, our LEAF.
    """
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _is_delegated(path: str) -> bool:
    if os.path.basename(path) == LEAF:
        path = os.path.dirname(path)  # the manager marks the cgroup that it made, and an earlier start made this one
    if os.geteuid() != 0 and os.stat(path).st_uid == os.geteuid():
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            pass  # not set
    return False


def mount_point() -> str | None:
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == "cgroup2":
                return fields[1]
    return None


def _own_path() -> str | None:
    with open("/proc/self/cgroup") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].strip()
    return None


class Cgroup:
    """The cgroup of one execution."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def create(cls, base: str, name: str) -> Cgroup | None:
        """A new cgroup, or None when the kernel gives none now (a limit on their number, say)."""
        path = f"{base}/{name}"
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            return None
        return cls(path)

    @classmethod
    def existing(cls, base: str | None, name: str) -> Cgroup | None:
        return cls(f"{base}/{name}") if base and os.path.isdir(f"{base}/{name}") else None

    def fork(self) -> int | None:
        """Forks a process that is born in it; None when the kernel does not: before Linux 5.7, or under a filter."""
        try:
            directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return linux.fork_into(directory)
        except OSError:
            return None
        finally:
            os.close(directory)

    def enter(self, strict: bool) -> None:
        """Moves the calling process in; called by the command's process before its exec. OSError only if strict."""
        try:
            _write(f"{self._path}/cgroup.procs", "0")
        except OSError:
            if strict:
                raise
            # else the walk over the tree finds its processes too

    def members(self) -> list[int]:
        try:
            return [int(pid) for pid in linux.read_small(f"{self._path}/cgroup.procs").split()]
        except OSError:
            return []

    def kill(self) -> None:
        try:
            _write(f"{self._path}/cgroup.kill", "1")
        except OSError:
            pass  # removed by hand, or before Linux 5.14: the walk over the tree follows in any case

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a member for memory; only where the memory controller is delegated too."""
        try:
            with open(f"{self._path}/memory.events") as file:
                counts = dict(line.split() for line in file)
        except OSError:
            return False
        return int(counts.get("oom_kill", 0)) > 0

    def limit(self, limits: Limits, confinement: Confinement) -> None:
        """Sets what the confinement declares, or raises OSError. The limits too, if possible: rlimits hold them anyway.

        Where both limit the same, the lower one holds.
        """
        self._set("memory.max", _least(limits.memory_bytes, confinement.memory_bytes), confinement.memory_bytes)
        if confinement.memory_bytes:
            self._set("memory.swap.max", "0", declared=False)
            self._set("memory.oom.group", "1", declared=False)  # half of a command is no use to anybody
        self._set("pids.max", _least(limits.processes, confinement.processes), confinement.processes)
        if confinement.cpus:
            self._set("cpu.max", f"{round(confinement.cpus * _PERIOD_US)} {_PERIOD_US}", declared=True)

    def remove(self) -> None:
        try:
            os.rmdir(self._path)
        except OSError:
            pass  # kept leftovers live in it

    def _set(self, name: str, value: str, declared: object) -> None:
        path = f"{self._path}/{name}"
        if not value or not (declared or os.path.exists(path)):
            return
        try:
            _write(path, value)
        except OSError as error:
            raise OSError(error.errno, f"its cgroup's {name} cannot be set to {value}: {error.strerror}") from error


def _least(*values: int) -> str:
    """The lowest of those that are set; empty when none is."""
    return str(min(filter(None, values), default=""))


def _read_words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _write(path: str, value: str) -> None:
    # Not created: a controller that is not there shall be ENOENT.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
