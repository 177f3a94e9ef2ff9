"""The command's own process, seen by whoever supervises it: usually its parent, after a restart perhaps not."""

from __future__ import annotations

import os
import signal

from rexec_server.core.spool import Usage
from rexec_server.runner import linux
from rexec_server.runner.linux import Status


class Leader:
    """A process that is watched by its pidfd and left unreaped until its end is on disk."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.usage: Usage | None = None

    @classmethod
    def of_child(cls, pid: int) -> Leader:
        return cls(pid, os.pidfd_open(pid))

    def status(self) -> Status | None:
        """Return how it ended. None: it runs, or, when it is over, cannot be known now or ever."""
        try:
            status = linux.peek_status(self.pidfd)
        except ChildProcessError:
            status = None
        if status:
            self.usage = linux.peek_usage(self.pidfd)
        elif linux.is_over(self.pidfd):
            # It is another's child; or ours, and its tracer has not let it go: until then its parent is told nothing.
            status = linux.foreign_status(self.pid, self.pidfd)
        return status

    @property
    def withheld(self) -> bool:
        """True when it is our child and over, and its tracer will tell us later how it ended."""
        try:
            return linux.peek_status(self.pidfd) is None and linux.is_over(self.pidfd)
        except ChildProcessError:
            return False

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except (ProcessLookupError, PermissionError):
            pass  # ended; or it has become another user by a setuid program, and is out of our reach

    def reap(self) -> None:
        """Reaps it after its end, and forgets it."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass  # not our child: its parent reaps it
        os.close(self.pidfd)
