"""The example of deploy/, made and started as its README says, and what its README says can be done with it."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_SECTION = re.compile(r"^##+ (.+?)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
# Below those from which the kernel chooses (ip_local_port_range), a range for each of pytest's workers.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
# In any order: whoever tests beside us begins elsewhere.
_PORTS = iter(random.sample(range(20_000 + 500 * _WORKER, 20_500 + 500 * _WORKER), 500))
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


class Deployed:
    """A directory made by deploy/example.py, and the processes that its README starts."""

    def __init__(self, maker: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
        """maker: what stands before `deploy/example.py`, such as another user's interpreter."""
        # Other users must get there, and pytest's own directories are for one.
        self._above = Path(tempfile.mkdtemp(prefix="rexec-deployed-"))
        self._above.chmod(0o777 | 0o1000)
        self.directory = self._above / "example"
        self.ports = free_ports(3)
        self.gateway = f"https://127.0.0.1:{self.ports[2]}"
        self._processes: list[subprocess.Popen[bytes]] = []
        command = [*(maker or [sys.executable]), ROOT / "deploy" / "example.py", self.directory]
        command += ["--ports", *map(str, self.ports)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=60)
        assert done.returncode == 0, done.stderr
        self.told = done.stdout

    def start(self, *command: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """One of its programs."""
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment
            )
        self._processes.append(process)
        return process

    def await_listening(self) -> None:
        eventually(lambda: "The page and JSON are at" in self.log or self._fail())

    @property
    def log_path(self) -> Path:
        return self._above / "log"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def block(self, section: str, number: int = 0) -> str:
        """A block of shell commands of the README."""
        sections = dict(_SECTION.findall((self.directory / "README.md").read_text()))
        blocks: list[str] = _BLOCK.findall(sections[section])
        return blocks[number]

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Commands as somebody would paste them, who has a client of rexec."""
        home = self._above / "home"
        home.mkdir(exist_ok=True)
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], capture_output=True, text=True, timeout=60, env=environment
        )

    def close(self) -> None:
        """Ends all that was started, the last first."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._above)
            for process in self._processes:
                stack.callback(_end, process)

    def _fail(self) -> None:
        ended = [process.args for process in self._processes if process.poll() is not None]
        if ended:
            raise RuntimeError(f"{ended} ended: {self.log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    for one in family:
        if one.is_running():
            one.kill()


def free_ports(count: int) -> list[int]:
    """Each is given once. The kernel gives none of these to who asks for any port, nor does another worker."""
    found = list(itertools.islice(filter(_is_free, _PORTS), count))
    assert len(found) == count, "no free ports are left"
    return found


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
