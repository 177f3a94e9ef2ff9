"""deploy/Dockerfile. No image is built here: its files are there, and what it starts is started as process 1."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from rexec.v1.execution_pb2 import Reason

from rexec_client import Client
from tests.production.deployed import ROOT
from tests.service import dockerfile
from tests.service.alice import SECONDS, begin, connect, is_whole
from tests.service.machine import PYTHON_PATH, Machine
from tests.waiting import eventually

# A machine is made first, which takes long where others work too.
pytestmark = pytest.mark.timeout(400)
INSTRUCTIONS = dockerfile.read(ROOT / "deploy" / "Dockerfile")
# What the image's last stage prepares, and whom its processes are.
_BOOT = """
id -u rexec >/dev/null 2>&1 ||
    useradd --user-group --uid 10001 --no-create-home --home-dir /var/lib/rexec --shell /usr/sbin/nologin rexec
install --directory --owner rexec --group rexec --mode 0700 /var/lib/rexec /var/log/rexec
cp "$SOURCE/deploy/health.py" /opt/rexec/health.py
chgrp rexec /etc/rexec/*
cd /
exec setpriv --reuid rexec --regid rexec --clear-groups -- "$@"
"""


def the(word: str) -> dockerfile.Instruction:
    """The one that counts: the last."""
    return [instruction for instruction in INSTRUCTIONS if instruction.word == word][-1]


HEALTH = dockerfile.Instruction("CMD", the("HEALTHCHECK").rest.partition("CMD ")[2]).words


class Container(Machine):
    """What the image would be, as far as this machine can be it."""

    def __init__(self) -> None:
        if not shutil.which("tini"):
            pytest.skip("there is no tini here: apt-get install tini")
        super().__init__(_BOOT)
        self._starts = 0
        # One user is all there is, so rules can name no other.
        rules = (self.settings / "policy.toml").read_text()
        self.configure("policy.toml", re.sub(r"^run_as = .*\n", "", rules, flags=re.MULTILINE))
        port = self.example.ports[2]
        settings = (self.settings / "rexec.toml").read_text()
        self.configure("rexec.toml", f'gateway = "127.0.0.1:{port}"\n{settings}')

    def start(self) -> None:
        self.boot(*the("ENTRYPOINT").words, *the("CMD").words, PYTHONPATH=PYTHON_PATH, PYTHONDONTWRITEBYTECODE="1")
        self._starts += 1
        eventually(lambda: self.log.count("The page and JSON are at") == self._starts or self.fail(), SECONDS)
        assert self.is_healthy(), self.log

    def is_healthy(self) -> bool:
        return self.run("env", f"PYTHONPATH={PYTHON_PATH}", *HEALTH).returncode == 0

    def find(self, module: str) -> psutil.Process:
        """The process that runs a module of ours."""
        return next(process for process in self.processes() if module in process.cmdline())


@pytest.fixture
def container() -> Iterator[Container]:
    container = Container()
    try:
        container.start()
        yield container
    finally:
        container.close()


@pytest.fixture
def alice(container: Container) -> Iterator[Client]:
    with connect(container.example) as client:
        yield client


def test_what_it_copies_is_there() -> None:
    """From this tree, and not kept out of the build; or from a stage that it has."""
    stages = [instruction.words[2] for instruction in INSTRUCTIONS if "AS" in instruction.words]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for instruction in INSTRUCTIONS:
        if instruction.word == "COPY" and not instruction.rest.startswith("--from="):
            for source in instruction.words[:-1]:
                assert (ROOT / source).exists(), source
                assert source in kept
        elif instruction.word == "COPY":
            assert re.match(r"--from=(\S+)", instruction.rest)[1] in stages  # type: ignore[index]


def test_it_is_nobodys_root() -> None:
    """An init is process 1, all runs as a user of its own, and no configuration is in the image, nor --dev."""
    assert the("ENTRYPOINT").words[0].endswith("/tini")
    assert the("USER").rest not in ("root", "0")
    assert "--dev" not in (ROOT / "deploy" / "Dockerfile").read_text()
    assert "tini" in next(one.rest for one in INSTRUCTIONS if "apt-get install" in one.rest)


def test_process_1_reaps_orphans(container: Container, alice: Client) -> None:
    """A shim whose runner was killed is process 1's child, and its end leaves no zombie; nothing is root's."""
    execution = begin(alice)
    shim = psutil.Process(eventually(lambda: _pid(container, "cat"), SECONDS)).ppid()
    assert {process.uids().effective for process in (container.main, *container.processes())} == {10001}
    container.find("rexec_server.runner").kill()
    eventually(lambda: psutil.Process(shim).ppid() == container.main.pid, SECONDS)
    is_whole(execution)
    eventually(lambda: not psutil.pid_exists(shim), SECONDS)
    eventually(lambda: not any(_is_zombie(process) for process in container.processes()), SECONDS)


def _pid(container: Container, name: str) -> int:
    for process in container.processes():
        with suppress(psutil.NoSuchProcess):
            if process.name() == name:
                return process.pid
    return 0


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_sigterm_ends_all_and_says_so(container: Container, alice: Client) -> None:
    """As `docker stop`: what runs is ended, and the next container on the same volume knows that."""
    execution = begin(alice)
    everything = container.processes()
    container.main.send_signal(signal.SIGTERM)
    assert container.wait() == 0
    assert not any(process.is_running() for process in everything)
    container.start()
    ended = execution.wait(SECONDS)
    assert ended.reason == Reason.REASON_SERVER_SHUTDOWN
    # And without its server a container is over too: not with 0, which a restart policy sees.
    container.find("rexec_server").kill()
    assert container.wait() != 0
