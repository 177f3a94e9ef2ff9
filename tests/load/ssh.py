"""The same figures for OpenSSH, where it has any: its own server, on a free port, with its own keys."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from tests.load.census import pss
from tests.load.figures import Row, kilobytes
from tests.load.naive import answers, free_port
from tests.waiting import eventually

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
# A handshake takes a third of a second of processor time, and each connection costs the same: a few tell it.
CONNECTIONS = 20
COMMANDS = {"a command": "sleep 3600", "a follower": "tail -f /dev/null"}


def measure_ssh(sessions: int) -> Sequence[Row]:
    """Commands and followers (a `tail -f` is the nearest) on one connection, and on one connection each."""
    if SSHD is None or shutil.which("ssh") is None:
        return [("OpenSSH", "not installed")]
    with tempfile.TemporaryDirectory() as directory, _server(Path(directory), sessions) as (pid, client):
        rows: list[Row] = []
        for what, command in COMMANDS.items():
            with _master(client, Path(directory) / "control") as shared:
                rows += _sessions(
                    pid, [*client[:1], *shared, *client[1:]], command, sessions, f"{what}, all on one connection"
                )
            rows += _sessions(pid, client, command, CONNECTIONS, f"{what}, a connection for each")
        return rows


def _sessions(pid: int, client: Sequence[str], command: str, count: int, title: str) -> Sequence[Row]:
    """Opens the sessions, and weighs the server's processes: sshd's, and apart from them what it runs."""
    program = command.partition(" ")[0]
    before, begun = _weigh(pid, "sshd"), time.monotonic()
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(_ended(subprocess.Popen([*client, command], stdin=subprocess.DEVNULL)))
        eventually(lambda: _count(pid, program) >= count or process.poll() is not None, within=180)
        running, seconds = _count(pid, program), time.monotonic() - begun
        each, itself = (_weigh(pid, "sshd") - before) / count, _weigh(pid, program) / count
        for found in _named(pid, program):  # when its connection goes, sshd leaves a command without a terminal alone
            found.kill()
    weight = f"{kilobytes(each)}, and {kilobytes(itself)} of `{program}`"
    return [(f"{title}: {count}", f"{running} in {seconds:.1f} s; each {weight}")]


@contextmanager
def _server(directory: Path, sessions: int) -> Iterator[tuple[int, list[str]]]:
    """Its pid, and how to call it."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    shutil.copy(directory / "user.pub", directory / "authorized")
    port = free_port()
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": directory / "host", "PidFile": "none",
        "AuthorizedKeysFile": directory / "authorized", "StrictModes": "no", "UsePAM": "no",
        "PermitRootLogin": "yes", "PasswordAuthentication": "no", "MaxSessions": sessions + 1,
        "MaxStartups": 1000, "PrintMotd": "no", "SetEnv": "SHLVL=5",
    }  # fmt: skip
    config = directory / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up before a login
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-f", config, "-E", directory / "log"])
    options = [
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={directory / 'known'}",
        "LogLevel=ERROR",
        "BatchMode=yes",
    ]
    client = ["ssh", "-F", "none", "-p", str(port), "-i", str(directory / "user")]
    client += [word for option in options for word in ("-o", option)] + [f"{getpass.getuser()}@127.0.0.1"]
    with _ended(process):
        eventually(answers(port), within=60)
        yield process.pid, client


@contextmanager
def _master(client: Sequence[str], path: Path) -> Iterator[list[str]]:
    """One connection; and the options with which others use it."""
    with _ended(subprocess.Popen([*client[:1], "-M", "-N", "-S", str(path), *client[1:]])):
        eventually(path.exists, within=60)
        yield ["-S", str(path)]
    path.unlink(missing_ok=True)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends it and all that it started."""
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()


def _named(pid: int, name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process)
    return found


def _count(pid: int, name: str) -> int:
    return len(_named(pid, name))


def _weigh(pid: int, name: str) -> int:
    """Bytes of the server's processes of that name."""
    return sum(pss(process.pid) for process in _named(pid, name))
