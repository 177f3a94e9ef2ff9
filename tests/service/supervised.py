"""The example of deploy/ under the real Supervisor, started as the example's README says."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from tests.production.deployed import BIN, ROOT, Deployed
from tests.runner import users
from tests.service.alice import RULE, SECONDS
from tests.service.programs import installed
from tests.waiting import eventually

PROGRAMS = ("rexec-runner", "rexec-server", "rexec-gateway")
CONFIG = ROOT / "deploy" / "supervisord.conf"


class Supervised:
    """supervisord, and what it runs."""

    def __init__(self) -> None:
        root = os.geteuid() == 0
        self._environment = users.environment() if root else dict(os.environ)
        self.example = Deployed()
        self._run_as = f'run_as = "{users.COMMAND.pw_name}"\n' if root else ""
        self.allow(RULE)
        # As root the server is another user, who may not run the interpreter of the tests.
        bin_ = installed(self.example.directory.parent / "bin", users.PYTHON) if root else BIN
        exports, _, command = self.example.block("Start it under Supervisor").strip().rpartition("\n")
        self._exports = exports.replace(f"REXEC_BIN={BIN}", f"REXEC_BIN={bin_}")
        self._start = command

    # --- Supervisor ---

    def start(self) -> None:
        """Starts supervisord, which makes a daemon of itself, and waits until all it starts is running."""
        done = self._shell(self._start)
        assert done.returncode == 0, done.stdout + done.stderr
        self.await_running()

    @property
    def pid(self) -> int:
        return int(Path(self.example.path("supervisor/supervisord.pid")).read_text())

    def control(self, *arguments: str) -> str:
        """What `supervisorctl` says."""
        done = self._shell(f"supervisorctl -c {CONFIG} {' '.join(arguments)}")
        return done.stdout + done.stderr

    def tail(self, program: str) -> subprocess.Popen[str]:
        """`supervisorctl tail -f`, as somebody watches it."""
        line = f"{self._exports}\nexec supervisorctl -c {CONFIG} tail -f {program}"
        return subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE, text=True, env=self._environment_of_us())

    def running(self) -> dict[str, int]:
        """The pids of the programs that are."""
        transport = SupervisorTransport(None, None, f"unix://{self.example.path('supervisor/supervisor.sock')}")
        with suppress(OSError, HTTPException, Error), ServerProxy("http://supervisor", transport) as supervisor:
            found: Any = supervisor.supervisor.getAllProcessInfo()
            return {one["name"]: one["pid"] for one in found if one["statename"] == "RUNNING"}
        return {}  # it is not there yet, or has just gone

    def await_running(self) -> dict[str, int]:
        """All of them, and the pids under which they are."""

        def all_of_them() -> dict[str, int]:
            running = self.running()
            assert set(running) == set(PROGRAMS), f"{running}\n{self.log('supervisord')}"
            return running

        return eventually(all_of_them, SECONDS)

    def log(self, program: str) -> str:
        return Path(self.example.path(f"supervisor/{program}.log")).read_text()

    # --- what it runs ---

    def allow(self, rule: str) -> None:
        """Adds a rule to the policy, for the server to be told of."""
        with open(self.example.path("server/policy.toml"), "a") as policy:
            policy.write(rule + self._run_as)

    def close(self) -> None:
        """Ends supervisord, all that it started, and what these started."""
        ours = self._ours()
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            supervisord = psutil.Process(self.pid)
            try:
                self.control("shutdown")
                eventually(lambda: not runs(supervisord), SECONDS)
            finally:
                supervisord.kill()
        for process in ours + self._ours():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        eventually(lambda: not any(map(runs, ours)), SECONDS)
        self.example.close()

    def _ours(self) -> list[psutil.Process]:
        """Each process of this directory, and what it started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and str(self.example.directory) in " ".join(process.cmdline()):
                    found += [process, *process.children(recursive=True)]
        return found

    def _shell(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", f"{self._exports}\n{line}"],
            capture_output=True, text=True, timeout=SECONDS, env=self._environment_of_us(),
        )  # fmt: skip

    def _environment_of_us(self) -> dict[str, str]:
        return {**self._environment, "PATH": f"{BIN}:{self._environment['PATH']}"}


def runs(process: psutil.Process) -> bool:
    """A zombie is over: whoever has got it by now may take its time to reap."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
