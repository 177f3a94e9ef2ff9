"""OpenSSH: a server of our own, with its own keys and configuration, as the user who runs the benchmark."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from bench.lab import end, end_all
from bench.model import Skipped
from bench.ports import free_port, wait_for_port, wait_until

# SHLVL keeps a login's bash from reading ~/.bashrc, and no PAM: what a user has there must not slow ssh down here.
_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
PidFile none
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
UseDNS no
MaxStartups 1000
MaxSessions 4000
SetEnv SHLVL=5
"""
_CLIENT = """
Host bench
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {directory}/user
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
"""


class Sshd:
    """A server on loopback, and what a client needs to reach it."""

    def __init__(self, directory: Path) -> None:
        """Skipped where there is no sshd."""
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        for name, found in (("sshd", program), ("ssh", shutil.which("ssh"))):
            if not found:
                raise Skipped(f"there is no {name} here: apt-get install openssh-server openssh-client")
        self.directory = directory
        self.user = getpass.getuser()
        self.port = free_port()
        for name in ("host", "user"):
            self._generate(name)
        host = (directory / "host.pub").read_text()
        (directory / "known").write_text(f"[127.0.0.1]:{self.port} {host}")
        (directory / "server").write_text(_SERVER.format(port=self.port, directory=directory))
        self.client_config = directory / "client"
        self.client_config.write_text(_CLIENT.format(port=self.port, directory=directory, user=self.user))
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where sshd, as root, locks up its children
        with (directory / "log").open("w") as log:
            # By its absolute path, as sshd wants it: it starts itself again for each connection.
            self._process = subprocess.Popen([str(program), "-D", "-e", "-f", str(directory / "server")], stderr=log)
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """An ssh of its own, with a connection of its own."""
        return ["ssh", "-F", str(self.client_config), *options, "bench", *arguments]

    def close(self) -> None:
        end_all(self._process)

    def _generate(self, name: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(self.directory / name)],
            check=True,
        )


class Master:
    """One connection that is open, for as many ssh as like: each is a process, and none shakes hands."""

    def __init__(self, sshd: Sshd) -> None:
        self._sshd = sshd
        # The name is short, as the path of a unix socket is, and a new one: several masters may be open.
        self._path = sshd.directory / f"m{free_port()}"
        self._process = subprocess.Popen(
            sshd.command(options=("-M", "-N", "-S", str(self._path))), stdin=subprocess.DEVNULL
        )
        wait_until(self._path.exists, self._process)

    def command(self, *arguments: str) -> list[str]:
        return self._sshd.command(*arguments, options=("-S", str(self._path), "-o", "ControlMaster=no"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        end(self._process)

    def __enter__(self) -> Master:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
