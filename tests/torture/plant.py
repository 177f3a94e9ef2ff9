"""rexec as it is tortured: server, gateway and runner on a small disk, behind a proxy."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from rexec_client import Client
from tests.clock import WallClock
from tests.torture.ground import Ground
from tests.torture.program import Program
from tests.torture.proxy import Proxy
from tests.waiting import eventually

# In the environment of every command: also one that lost everybody is found.
TAG = "REXEC_TORTURE"
CALLER = "torture"
# Nothing in the torture lasts a tenth of this: who is still without an answer then, gets none.
PATIENCE_SECONDS = 120.0


class Plant:
    """All that runs. With `own_runner` it is a program of its own; otherwise the server starts it."""

    def __init__(self, ground: Ground, *, own_runner: bool, cgroup: bool, most_running: int) -> None:
        self.ground = ground
        self.tag = uuid.uuid4().hex
        self.state_dir = ground.disk / "state"
        self.witnesses = ground.path / "witnesses"
        self.witnesses.mkdir()
        socket = f"{ground.path}/server.sock"
        python = sys.executable
        server = [
            python, "-m", "rexec_server", "--dev", "--listen", f"unix:{socket}", "--state-dir", str(self.state_dir),
            "--gateway", "127.0.0.1:0", "--keep-count", "1000000", "--max-running", str(most_running),
        ]  # fmt: skip
        self.clock = WallClock(ground.path / "clock")
        environment = {**os.environ, **self.clock.environment}
        self._runner = None
        if own_runner:
            server += ["--no-start-runner"]
            runner = [python, "-m", "rexec_server.runner", "--dev", "--state-dir", str(self.state_dir)]
            runner += [] if cgroup else ["--no-cgroup"]
            self._runner = Program("runner", runner, ground.path / "runner.log", environment)
        self.server = Program("server", server, ground.path / "server.log", environment)
        self.proxy = Proxy(socket)

    @property
    def spool(self) -> Path:
        return self.state_dir / "spool"

    def client(self) -> Client:
        """A client that has patience, through the proxy."""
        patience = PATIENCE_SECONDS
        address = self.proxy.address
        return Client(address, caller=CALLER, timeout=20.0, retry_timeout=patience, reconnect_timeout=patience)

    def wait_until_ready(self) -> None:
        """Answers, and has a runner and a gateway."""
        with self.client() as client:
            client.run(["true"], check=True)
        eventually(lambda: self.gateway_url and self.gateway_pid and self.runner_pid, within=60)

    @property
    def gateway_url(self) -> str:
        """Of the server that runs now."""
        found = re.findall(r"The page and JSON are at (\S+?):?$", self.server.log.read_text(), re.MULTILINE)
        return str(found[-1]) if found else ""

    @property
    def runner_pid(self) -> int:
        """0 when none runs."""
        with suppress(OSError, ValueError, psutil.Error):
            pid = int((self.state_dir / "runner.pid").read_text())
            if str(self.state_dir) in psutil.Process(pid).cmdline():
                return pid
        return 0

    @property
    def gateway_pid(self) -> int:
        with suppress(psutil.Error):
            for child in psutil.Process(self.server.pid).children():
                with suppress(psutil.Error):
                    if "rexec_server.gateway" in child.cmdline():
                        return child.pid
        return 0

    def shims(self) -> dict[int, str]:
        """Live shims, each with what ps shows of its execution's name; also those whose runner is dead."""
        names = {name[:10] for name in os.listdir(self.spool)}
        found = {}
        for pid in psutil.pids():
            with suppress(OSError, ValueError):
                comm, state, parent = _stat(pid)
                # What it forks has its name until the exec, and is no shim.
                if comm[:5] == "shim " and comm[5:] in names and state != "Z" and _stat(parent)[0] != comm:
                    found[pid] = comm[5:]
        return found

    def restart_server(self) -> None:
        """As an upgrade does."""
        before = self.server.starts
        self.server.send(signal.SIGTERM)
        eventually(lambda: self.server.starts > before, within=60)

    def tagged(self) -> list[psutil.Process]:
        """Commands of ours, and what they started."""
        mark = f"{TAG}={self.tag}".encode()
        found = []
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
        return found

    def close(self) -> None:
        """Ends everything, whatever state it is in."""
        self.server.stop()
        if self._runner:
            self._runner.stop()
        self.proxy.close()
        until = time.monotonic() + 60

        def gone() -> bool:
            left = self._left()
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            return not left

        eventually(gone, within=until - time.monotonic())

    def _left(self) -> list[psutil.Process]:
        found = self.tagged()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.ground.path) in " ".join(process.cmdline()) and process.pid != os.getpid():
                    found.append(process)
        return [process for process in found if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _stat(pid: int) -> tuple[str, str, int]:
    """Name, state and parent (proc(5))."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
    return stat[stat.index("(") + 1 : stat.rindex(")")], state, int(parent)
