"""What a server and its runner hold: processes, descriptors, threads, memory, files."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.servers import Server
from tests.waiting import eventually

# gRPC has pools in the server, which grow with what is going on, and not with what has been.
_POOLS = {"server_fds": 8, "threads": 8}
_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


class Census(NamedTuple):
    """How much of everything there is. `processes` are the runner and all below it, `files` those of executions."""

    processes: int
    zombies: int
    server_fds: int
    runner_fds: int
    threads: int
    watches: int
    files: int

    def grown(self, before: Census) -> dict[str, int]:
        """What there is more of than before, and how much more."""
        more = {name: new - old for name, old, new in zip(self._fields, before, self, strict=True)}
        return {name: count for name, count in more.items() if count > _POOLS.get(name, 0)}


class Memory(NamedTuple):
    """Bytes (PSS: what is shared is counted by shares) of the server, its runner, the shims, and the commands."""

    server: int
    runner: int
    shims: int
    commands: int


def census(server: Server) -> Census:
    """Counts once."""
    runner = psutil.Process(server.runner_pid)
    spool = str(server.state_dir / "spool")
    family = [runner, *runner.children(recursive=True)]
    return Census(
        processes=len(family),
        zombies=sum(_is_zombie(process) for process in family),
        server_fds=_fds(server.pid),
        runner_fds=_fds(server.runner_pid),
        threads=psutil.Process(server.pid).num_threads(),
        watches=_watches(server.pid),
        files=sum(len(names) for place, _, names in os.walk(spool) if place != spool),
    )


def settled(server: Server, before: Census | None = None, within: float = 60.0) -> Census:
    """Counts when no execution has a process and nothing is more than `before`; after this time in any case."""
    last = census(server)

    def at_rest() -> bool:
        nonlocal last
        last = census(server)
        return last.processes == 1 and not (before and last.grown(before))

    with suppress(AssertionError):
        eventually(at_rest, within)
    return last


def memory(server: Server) -> Memory:
    """Weighs each process. A shim is a child of the runner; a command, and what it started, are below a shim."""
    runner, shims, commands = server.runner_pid, 0, 0
    for process in psutil.Process(runner).children(recursive=True):  # once: each look goes through all of the machine
        with suppress(psutil.NoSuchProcess):
            if process.ppid() == runner:
                shims += pss(process.pid)
            else:
                commands += pss(process.pid)
    return Memory(pss(server.pid), pss(runner), shims, commands)


def pss(pid: int) -> int:
    """Bytes; 0 for a process that has gone."""
    with suppress(OSError):
        match = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
        return int(match[1]) * 1024 if match else 0
    return 0


def _is_zombie(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return False


def _fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _watches(pid: int) -> int:
    """inotify watches of a process."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with suppress(OSError):
            count += Path(f"/proc/{pid}/fdinfo/{name}").read_text().count("inotify wd:")
    return count
