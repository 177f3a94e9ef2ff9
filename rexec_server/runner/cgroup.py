"""A cgroup v2 per execution, where one is delegated to us: an exact list of members, and a kill that misses none."""

from __future__ import annotations

import os


def find_delegated() -> str | None:
    """The directory in which we may make cgroups, or None.

    Ours is our own cgroup: when it was given to our user, when its manager marked it as delegated
    (`Delegate=yes` sets user.delegate or trusted.delegate), or when it is the root and we are too.
    """
    mount, own = _mount_point(), _own_path()
    if mount is None or own is None:
        return None
    path = os.path.normpath(f"{mount}/{own}")
    if not os.access(f"{path}/cgroup.procs", os.W_OK) or not (_is_delegated(path) or own == "/"):
        return None
    base = f"{path}/rexec"
    try:
        os.makedirs(base, exist_ok=True)
    except OSError:
        return None
    return base if os.path.exists(f"{base}/cgroup.kill") else None


def _is_delegated(path: str) -> bool:
    if os.geteuid() != 0 and os.stat(path).st_uid == os.geteuid():
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            pass  # not set
    return False


def _mount_point() -> str | None:
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

    def enter(self) -> None:
        """Moves the calling process in; called by the command's process before its exec."""
        try:
            self._write("cgroup.procs", "0")
        except OSError:
            pass  # the walk over the tree finds its processes too

    def members(self) -> list[int]:
        try:
            with open(f"{self._path}/cgroup.procs") as file:
                return [int(line) for line in file]
        except OSError:
            return []

    def kill(self) -> None:
        try:
            self._write("cgroup.kill", "1")
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

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Sets what the delegated controllers can hold; rlimits hold it in any case."""
        for name, value in (("memory.max", memory_bytes), ("pids.max", processes)):
            if value and os.path.exists(f"{self._path}/{name}"):
                self._write(name, str(value))

    def remove(self) -> None:
        try:
            os.rmdir(self._path)
        except OSError:
            pass  # kept leftovers live in it

    def _write(self, name: str, value: str) -> None:
        with open(f"{self._path}/{name}", "w") as file:
            file.write(value)
