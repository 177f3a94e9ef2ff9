"""Machines as a test wants them: all is well there, but for what it says."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from rexec_client.version import __version__
from rexec_server.doctor.host import Host, Limit, Room

WELL: dict[str, Any] = {
    "uid": os.geteuid(),
    "python": (3, 13),
    "kernel": "6.18.0",
    "now": time.time(),
    "boot_time": time.time() - 1000,
    "synchronised": True,
    "installed": {"rexec": __version__, "grpcio": "1.90.0"},
    "requirements": ["grpcio>=1.85.1", "pytest>=8.3; extra == 'dev'", "rexec[cli]; extra == 'server'"],
    "limits": {resource.RLIMIT_NOFILE: Limit(1 << 20, 1 << 20), resource.RLIMIT_NPROC: Limit(None, None)},
    "sysctl": {
        "kernel/pid_max": 1 << 22,
        "fs/inotify/max_user_watches": 1 << 16,
        "fs/inotify/max_user_instances": 128,
    },
    "missing_calls": [],
    "cgroup_mount": "/sys/fs/cgroup",
    "delegated_cgroup": "/sys/fs/cgroup/rexec",
    "cgroup_controllers": ["memory", "pids", "cpu", "io"],
    "cgroup_processes": None,
    "room": Room(1 << 50, 1 << 30),
    "filesystem": "ext4",
    "lacks": [],
    "holders": {},
}


class Elsewhere(Host):
    """Tells what the test says."""

    def __init__(self, **facts: Any) -> None:
        unknown = facts.keys() - WELL.keys()
        assert not unknown, unknown
        self._facts = WELL | facts

    uid = property(lambda self: self._facts["uid"])  # type: ignore[assignment]
    python = property(lambda self: self._facts["python"])  # type: ignore[assignment]
    kernel = property(lambda self: self._facts["kernel"])  # type: ignore[assignment]
    now = property(lambda self: self._facts["now"])  # type: ignore[assignment]
    boot_time = property(lambda self: self._facts["boot_time"])  # type: ignore[assignment]
    synchronised = property(lambda self: self._facts["synchronised"])  # type: ignore[assignment]

    def installed(self, package: str) -> str | None:
        return self._facts["installed"].get(package)

    def requirements(self) -> list[str]:
        return self._facts["requirements"]

    def limit(self, number: int, pid: int = 0) -> Limit:
        return self._facts["limits"][number]

    def sysctl(self, name: str) -> int | None:
        return self._facts["sysctl"].get(name)

    def missing_calls(self) -> list[str]:
        return self._facts["missing_calls"]

    def cgroup_mount(self) -> str | None:
        return self._facts["cgroup_mount"]

    def delegated_cgroup(self) -> str | None:
        return self._facts["delegated_cgroup"]

    def cgroup_controllers(self, path: str) -> list[str]:
        return self._facts["cgroup_controllers"]

    def cgroup_processes(self) -> int | None:
        return self._facts["cgroup_processes"]

    def room(self, path: str) -> Room:
        return self._facts["room"]

    def filesystem(self, path: str) -> str:
        return self._facts["filesystem"]

    def lacks(self, directory: str) -> list[str] | None:
        return self._facts["lacks"]

    def holder(self, path: str) -> int | None:
        return self._facts["holders"].get(os.path.basename(path))
