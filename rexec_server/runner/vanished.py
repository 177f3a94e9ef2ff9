"""Ending what survives of executions whose files are gone, so that nothing runs of which no record tells."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rexec_server.core.spool import FIFO_ERR, FIFO_IN, FIFO_OUT
from rexec_server.runner import linux
from rexec_server.runner.cgroup import Cgroup
from rexec_server.runner.family import Family
from rexec_server.runner.loop import Loop
from rexec_server.runner.supervision import UNKILLABLE_SECONDS
from rexec_server.runner.tree import alive, children, is_alive, send

# A look reads all of /proc. The next one comes after this long, or five times what the last one took.
_LOOK_SECONDS = 0.01
# A process that is just being born is missed by one look.
_QUIET_LOOKS = 2
_FIFOS = (FIFO_OUT, FIFO_ERR, FIFO_IN)


@dataclass
class _Vanished:
    """One execution: the names of its directory, and what is called when nothing of it lives."""

    paths: set[str]
    until: float
    then: list[Callable[[], None]] = field(default_factory=list)
    quiet_looks: int = 0


@dataclass(frozen=True)
class _Process:
    """A process as /proc shows it."""

    pid: int
    name: str
    session: int
    files: tuple[str, ...]  # of its standard streams


class Undertaker:
    """Kills the command, the shim and all else of an execution, without its records. Looks for many at once."""

    def __init__(self, loop: Loop, spool: int, cgroup_base: str | None, family: Family) -> None:
        self._loop = loop
        self._spool = spool
        self._cgroup_base = cgroup_base
        self._family = family
        self._vanished: dict[str, _Vanished] = {}

    @property
    def busy(self) -> bool:
        """True when an end is waited for."""
        return bool(self._vanished)

    def end(self, name: str, directory: int | None, then: Callable[[], None]) -> None:
        """Calls back when nothing of the execution lives. `directory`: its own, open, where that is known."""
        idle = not self._vanished
        one = self._vanished.setdefault(name, _Vanished(set(), time.monotonic() + UNKILLABLE_SECONDS))
        one.paths.add(f"{_path(self._spool)}/{name}")
        if directory is not None:
            one.paths.add(_path(directory))  # it may have been moved
        one.then.append(then)
        if idle:
            self._loop.call_later(0, self._look)

    def _look(self) -> None:
        began = time.monotonic()
        try:
            processes = list(_processes())
            self._family.look()
        except OSError:  # no descriptor is left to look with
            self._loop.call_later(1.0, self._look)
            return
        for name, one in list(self._vanished.items()):
            members = self._members(name, one.paths, processes)
            one.quiet_looks = 0 if members else one.quiet_looks + 1
            self._kill(name, members)
            if one.quiet_looks >= _QUIET_LOOKS or began > one.until:
                del self._vanished[name]
                for then in one.then:
                    then()
        if self._vanished:
            self._loop.call_later(max(_LOOK_SECONDS, 5 * (time.monotonic() - began)), self._look)

    def _members(self, name: str, paths: set[str], processes: list[_Process]) -> set[int]:
        streams = {f"{path}/{fifo}" for path in paths for fifo in _FIFOS}
        found = {one for one in processes if not streams.isdisjoint(one.files)}
        # Sessions are inherited, and begun by a command's own process or below it.
        sessions = {one.session for one in found} - {os.getsid(0)}
        members = {one.pid for one in processes if one in found or one.session in sessions}
        members |= {one.pid for one in processes if one.name == f"shim {name}"[:15] and _has_open(one.pid, paths)}
        members |= {pid for pid, owner in self._family.shims.items() if owner == name}
        members |= self._family.orphans_of(name)
        pending = list(members)
        while pending:
            newcomers = set(children(pending.pop())) - members
            members |= newcomers
            pending += newcomers
        return {pid for pid in members if alive(pid)}

    def _kill(self, name: str, members: set[int]) -> None:
        cgroup = Cgroup.existing(self._cgroup_base, name)
        if cgroup:
            cgroup.kill()
        for pid in members:
            send(pid, signal.SIGKILL)


def _path(directory: int) -> str:
    return os.readlink(f"/proc/self/fd/{directory}").removesuffix(" (deleted)")


def _processes() -> Iterator[_Process]:
    own = os.getpid()
    for number in os.listdir("/proc"):
        if not number.isdigit() or int(number) == own:
            continue
        try:
            stat = linux.read_small(f"/proc/{number}/stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()
        if is_alive(fields):
            name = stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode(errors="replace")
            yield _Process(int(number), name, int(fields[3]), tuple(_streams(number)))


def _has_open(pid: int, directories: set[str]) -> bool:
    """Return True when a process has one of the directories open: a shim has its own."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
        links = {os.readlink(f"/proc/{pid}/fd/{name}").removesuffix(" (deleted)") for name in names}
    except OSError:
        return False  # it has ended, or we may not look
    return not links.isdisjoint(directories)


def _streams(pid: str) -> Iterator[str]:
    for fd in (0, 1, 2):
        try:
            yield os.readlink(f"/proc/{pid}/fd/{fd}").removesuffix(" (deleted)")
        except OSError:
            pass  # no such descriptor, or another user's process: not one of ours
