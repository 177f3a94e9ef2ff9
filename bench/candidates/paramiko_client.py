"""paramiko, as a client of OpenSSH's server: one connection, a channel for each command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.candidates.openssh import Sshd
from bench.model import Skipped


@contextmanager
def connect(sshd: Sshd) -> Iterator[Any]:
    """Skipped where there is no paramiko."""
    try:
        import paramiko
    except ImportError:
        raise Skipped("there is no paramiko here: pip install 'rexec[bench]'") from None
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(sshd.directory / "known"))
        client.connect(
            "127.0.0.1", sshd.port, sshd.user, key_filename=str(sshd.directory / "user"),
            allow_agent=False, look_for_keys=False,
        )  # fmt: skip
        yield client


def run(client: Any, command: str) -> tuple[int, bytes]:
    """Runs a command to its end: the exit status, and the output."""
    _, stdout, stderr = client.exec_command(command)
    output: bytes = stdout.read()
    status: int = stdout.channel.recv_exit_status()
    stderr.close()
    stdout.close()
    return status, output
