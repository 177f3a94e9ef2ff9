"""Supervisor, over its XML-RPC: it starts programs that its configuration names, and is asked for their end."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.lab import end_all
from bench.model import Skipped
from bench.ports import free_port, wait_for_port

# Between two questions for the end, in seconds.
PAUSE = 0.001
TRUES = tuple((f"true-{number}", "true") for number in range(16))
_CONFIGURATION = """
[supervisord]
nodaemon = true
logfile = {directory}/supervisord.log
pidfile = {directory}/supervisord.pid
minfds = 8192
[inet_http_server]
port = 127.0.0.1:{port}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command = {command}
autostart = false
autorestart = false
startsecs = 0
stdout_logfile = {directory}/%(program_name)s.out
stderr_logfile = NONE
"""


class Supervisord:
    """A server that knows some programs. A program runs once at a time, so each client has its own."""

    def __init__(self, directory: Path, programs: Sequence[tuple[str, str]] = TRUES) -> None:
        """programs: names and commands."""
        if importlib.util.find_spec("supervisor") is None:
            raise Skipped("there is no Supervisor here: pip install 'rexec[bench]'")
        self.port = free_port()
        self.programs = programs
        configuration = directory / "supervisord.conf"
        text = _CONFIGURATION.format(directory=directory, port=self.port)
        for name, command in programs:
            text += _PROGRAM.format(name=name, command=command, directory=directory)
        configuration.write_text(text)
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c", str(configuration)],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def proxy(self) -> Any:
        """For one thread."""
        return xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.port}/RPC2").supervisor

    def close(self) -> None:
        end_all(self._process)


def run(supervisor: Any, name: str) -> int:
    """Runs a program to its end: the exit code."""
    supervisor.startProcess(name, True)
    while True:
        info = supervisor.getProcessInfo(name)
        if info["statename"] in ("EXITED", "FATAL"):
            return int(info["exitstatus"])
        time.sleep(PAUSE)
