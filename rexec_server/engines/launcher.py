"""Starting a runner where nothing else does: the one-user mode."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence

from rexec_server import notify
from rexec_server.core.spool import RUNNER_SOCKET

# One that cannot start is not tried more often than this.
PAUSE_SECONDS = 1.0
# A FIFO that is not a log refuses at once, and is not waited for.
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC


class RunnerLauncher:
    """Starts a runner that outlives the server: the one-user mode, in which nothing else does it."""

    def __init__(self, state_dir: str, flags: Sequence[str]) -> None:
        self._state_dir = state_dir
        self._flags = flags
        self._pid = 0
        self._not_before = 0.0

    def start_early(self) -> None:
        """Starts one if none answers: it gets ready while the server still imports."""
        directory = os.open(self._state_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(f"/proc/self/fd/{directory}/{RUNNER_SOCKET}")
        except OSError:
            self()
        finally:
            os.close(directory)

    def __call__(self) -> None:
        """Starts one, unless the one that we started lives. posix_spawn does not fork, and is safe beside gRPC."""
        if self._lives() or time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + PAUSE_SECONDS
        log = os.open(f"{self._state_dir}/runner.log", _LOG_FLAGS, 0o640)
        arguments = [sys.executable, "-P", "-m", "rexec_server.runner", "--state-dir", self._state_dir]
        # The manager that started us is told of us alone.
        environment = {name: value for name, value in os.environ.items() if name != notify.VARIABLE}
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [*arguments, *self._flags],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(log)

    def _lives(self) -> bool:
        if self._pid and os.waitpid(self._pid, os.WNOHANG) != (0, 0):
            self._pid = 0
        return self._pid != 0
