"""One of rexec's programs, started again whenever it has ended: what Supervisor or systemd would do."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PAUSE_SECONDS = 0.1


class Program:
    """Runs until `stop`; what it says goes to its log."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self._environment = environment
        self.log = log
        self.starts = 0
        self._arguments = arguments
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name=name)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> int:
        """Signals it, if it runs. Returns its pid, or 0."""
        with self._lock:  # unreaped, so the pid is its own
            if self._process.returncode is not None:
                return 0
            os.kill(self._process.pid, number)
            return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it, and starts it no more."""
        self._stopping.set()
        while self._thread.is_alive():
            self.send(signal.SIGCONT)
            self.send(number)
            self._thread.join(10.0)
            number = signal.SIGKILL

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def _keep(self) -> None:
        while True:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._process.wait()
            if self._stopping.wait(PAUSE_SECONDS):
                return
            with self._lock, suppress(OSError):
                self._process = self._start()
