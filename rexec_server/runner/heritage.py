"""What the runner and its shims change for themselves, and what a command must therefore get back."""

from __future__ import annotations

import os
import resource
import signal
from typing import NamedTuple

from rexec_server.runner import linux

_OOM_SCORE = "/proc/self/oom_score_adj"
# The kernel rather kills the command that ate the memory than those who would report it.
_OOM_SPARED = "-900"


class Heritage(NamedTuple):
    """What a command would have had if we had not changed it."""

    oom_score: str
    open_files: tuple[int, int]
    group: int

    @classmethod
    def put_aside(cls, inherited: Heritage | None = None) -> Heritage:
        """Raises for this process and its shims what a thousand executions need; call once, at the start.

        inherited: what a predecessor in this process had put aside. SIGHUP stays blocked: as long as nobody handles it,
        it would end us.
        """
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
            try:
                signal.signal(number, signal.SIG_DFL)  # SIGCHLD ignored, say, would turn each exit code into 0
            except (OSError, ValueError):
                pass  # the C library keeps two for itself
        linux.reset_internal_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP})
        heritage = inherited or cls._of_this_process()
        resource.setrlimit(resource.RLIMIT_NOFILE, (heritage.open_files[1],) * 2)
        if os.geteuid() == 0:  # others who could lower it could not give it back once they are not dumpable
            _set_oom_score(_OOM_SPARED)
        return heritage

    @classmethod
    def _of_this_process(cls) -> Heritage:
        with open(_OOM_SCORE) as file:
            return cls(file.read().strip(), resource.getrlimit(resource.RLIMIT_NOFILE), os.getgid())

    def give_back(self) -> None:
        """In the command's process, before its own limits are applied. Signals that Python ignores are reset too."""
        resource.setrlimit(resource.RLIMIT_NOFILE, self.open_files)
        _set_oom_score(self.oom_score)
        if os.getgid() != self.group:
            os.setresgid(self.group, self.group, self.group)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)


def _set_oom_score(value: str) -> None:
    try:
        fd = os.open(_OOM_SCORE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except PermissionError:
        pass  # only root may, and then it was not lowered before either
