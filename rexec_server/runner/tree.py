"""The processes that a command started: finding them all, and ending them all.

A process that left the command's group and session is still found: the supervisor is its subreaper, so an orphan
becomes the supervisor's child. Where a delegated cgroup v2 is writable, the kernel keeps the list instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence

from rexec_server.core.executed import has_executed
from rexec_server.runner import linux
from rexec_server.runner.cgroup import Cgroup

# Of /proc/PID/stat, from its field 3 on: num_threads (proc(5), field 20).
_THREADS = 17


class ProcessTree:
    """Everything alive that belongs to one command, the command's own process (the leader) apart.

    `roots` yields the processes whose descendants belong to the command. The leader is known by its start time too,
    so that its pid and group are not mistaken for a later owner's; its parent keeps it unreaped meanwhile.
    """

    def __init__(
        self, leader: int, leader_start: int, roots: Callable[[], Iterable[int]], cgroup: Cgroup | None
    ) -> None:
        self._leader = leader
        self._leader_start = leader_start
        self._roots = roots
        self._cgroup = cgroup

    @property
    def executed(self) -> bool:
        """True when the leader has come to its exec."""
        return has_executed(self._leader, self._leader_start)

    def members(self) -> set[int]:
        """Processes alive now besides the leader; zombies are not alive."""
        found: dict[int, None] = dict.fromkeys(self._roots())
        pending = list(found)
        while pending:
            for child in children(pending.pop()):
                if child not in found:
                    found[child] = None
                    pending.append(child)
        if self._cgroup:
            found |= dict.fromkeys(self._cgroup.members())
        return {pid for pid in found if pid != self._leader and alive(pid)}

    def signal_group(self, number: int) -> bool:
        """Signals the command's process group; False when it is no more, or can no longer be told from another."""
        if linux.start_ticks(self._leader) != self._leader_start:
            return False
        try:
            os.killpg(self._leader, number)
        except ProcessLookupError:
            send(self._leader, number)  # it has not come so far as to have a group of its own
            return False
        except PermissionError:  # of others, out of our reach
            return False
        return True

    def signal_all(self, number: int) -> None:
        """Signals the group, and each process that left it."""
        reached = self.signal_group(number)
        for pid in self.members():
            if not (reached and _group(pid) == self._leader):
                send(pid, number)

    def kill(self) -> None:
        """Kills all that is found. A process being born may be missed, so the caller repeats until none is left."""
        if self._cgroup:
            self._cgroup.kill()
        self.signal_all(signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Children of all threads of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, linux.read_small(f"/proc/{pid}/task/{thread}/children").split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while we looked; its children have become ours, and the next look finds them
    return found


def relatives(leader: int, directory: str) -> set[int]:
    """Processes of a command that has lost its shim: of the leader's session, or holding the command's FIFOs open.

    It reads all of /proc, and is for takeovers only.
    """
    return {pid for pid in _all_pids() if _session(pid) == leader or _holds(pid, directory)}


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _holds(pid: int, directory: str) -> bool:
    for fd in (1, 2):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(directory + "/"):
                return True
        except OSError:
            pass  # no such descriptor, or another user's process: not one of ours
    return False


def alive(pid: int) -> bool:
    fields = linux.stat_fields(pid)
    return fields is not None and is_alive(fields)


def is_alive(fields: Sequence[str] | Sequence[bytes]) -> bool:
    """Tell by /proc/PID/stat. The state is the first thread's: a zombie's also when it has ended before the others."""
    return fields[0] not in ("Z", "X", b"Z", b"X") or int(fields[_THREADS]) > 1


def _group(pid: int) -> int | None:
    fields = linux.stat_fields(pid)
    return int(fields[2]) if fields else None


def _session(pid: int) -> int | None:
    fields = linux.stat_fields(pid)
    return int(fields[3]) if fields else None


def send(pid: int, number: int) -> None:
    """Signals a process that may end at any moment, and never the next owner of its pid."""
    before = linux.start_ticks(pid)
    pidfd = linux.open_pidfd(pid, before) if before is not None else None
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        pass  # ended; or it has become another user by a setuid program, and is out of our reach
    finally:
        os.close(pidfd)
