"""`rexec-gateway` as a program of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

_LISTENS = re.compile(r"listens on (\S+)$")


class Alone:
    """A gateway to any target, on a free port."""

    def __init__(self, directory: Path, target: str, *flags: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "rexec_server.gateway", "--target", target, "--listen", "127.0.0.1:0", *flags]
        self._log = directory / "gateway.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = _LISTENS.search(line)
        assert match, f"the gateway did not start: {line!r}\n{self.log}"
        self.url = match[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=15)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code
