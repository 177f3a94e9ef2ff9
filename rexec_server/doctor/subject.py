"""What is examined: a configuration, on a machine, with the runner that answers there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from rexec_server.config import Config
from rexec_server.core.spool import RUNNER_SOCKET, SPOOL
from rexec_server.doctor.finding import Finding
from rexec_server.doctor.host import Host
from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.files import PolicyError
from rexec_server.runner.wire import HEADER, encode

_ANSWER_SECONDS = 10.0


class Subject:
    """What the checks look at."""

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host

    @property
    def state_dir(self) -> str:
        return self.config.state_dir

    @property
    def spool(self) -> str:
        return f"{self.state_dir}/{SPOOL}"

    @property
    def index(self) -> str:
        return f"{self.state_dir}/index.sqlite"

    @cached_property
    def server_pid(self) -> int | None:
        """Of the server that runs with this state directory."""
        return self.host.holder(f"{self.state_dir}/server.pid")

    @cached_property
    def runner_pid(self) -> int | None:
        return self.host.holder(f"{self.state_dir}/runner.pid")

    @cached_property
    def runner(self) -> dict[str, Any] | None:
        """What the runner says of itself; None when none answers, or not to us."""
        try:
            return _ask_runner(self.state_dir)
        except (OSError, ValueError):
            return None

    @cached_property
    def allowlist(self) -> Allowlist | None:
        """The rules; None where there are none, or none that can be used."""
        try:
            return Allowlist.load(self.config.policy) if self.config.policy else None
        except PolicyError:
            return None


Check = Callable[[Subject], Iterable[Finding]]


def _ask_runner(state_dir: str) -> dict[str, Any]:
    directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            sock.connect(f"/proc/self/fd/{directory}/{RUNNER_SOCKET}")
            sock.sendall(encode({"op": "info", "number": 1}))
            with sock.makefile("rb") as file:
                head = file.read(HEADER.size)
                if len(head) < HEADER.size:
                    raise ConnectionError("closed")
                answer: dict[str, Any] = json.loads(file.read(HEADER.unpack(head)[0]))
                return answer
    finally:
        os.close(directory)
