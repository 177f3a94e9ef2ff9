"""What runs as process 1 of namespaces of its own, on this machine's files. Killing it ends all that it started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from contextlib import suppress

import psutil
import pytest

from tests.production.deployed import ROOT, Deployed
from tests.runner import users
from tests.service.alice import RULE, SECONDS
from tests.service.programs import installed
from tests.waiting import eventually

# What of this machine it may change: it does so in an overlay, and the machine stays as it was.
_PREPARE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
for place in etc opt var; do
    mkdir -p "$PLACE/$place" "$PLACE/.$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$PLACE/$place,workdir=$PLACE/.$place" "/$place"
done
mkdir -p /opt/rexec/source /opt/rexec/packages
mount --bind "$SOURCE" /opt/rexec/source
mount --bind "$PACKAGES" /opt/rexec/packages
"""
# Where the programs in /opt/rexec/bin find rexec.
PYTHON_PATH = "/opt/rexec/source:/opt/rexec/source/protos:/opt/rexec/packages"


class Machine:
    """rexec is in /opt/rexec/bin of it, and its settings, those of the example, are in /etc/rexec."""

    def __init__(self, boot: str, *, namespaces: tuple[str, ...] = ()) -> None:
        """boot: what the shell does there, as process 1, before it becomes what shall be it."""
        users.environment()
        for program in ("unshare", "nsenter"):
            if not shutil.which(program):
                pytest.skip(f"there is no {program} here: apt-get install util-linux")
        self.example = Deployed()
        self.place = self.example.directory.parent / "machine"
        self.settings = self.place / "etc/rexec"
        self._script = _PREPARE + boot
        self._namespaces = namespaces
        self.unshare: subprocess.Popen[bytes] | None = None
        self._fill()

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    def configure(self, name: str, text: str, *, append: bool = False) -> None:
        """Writes a file of /etc/rexec."""
        with open(self.settings / name, "a" if append else "w") as file:
            file.write(text)

    def boot(self, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> None:
        """Starts it, by the command `prefix` if any; the arguments are the script's. Then `main` is its process 1."""
        line = [*prefix, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *self._namespaces]
        known = {
            "PATH": os.environ["PATH"], "PLACE": str(self.place), "SOURCE": str(ROOT),
            "PACKAGES": sysconfig.get_path("purelib"), **environment,
        }  # fmt: skip
        with open(self.place / "log", "ab") as log:
            self.unshare = subprocess.Popen(
                [*line, "sh", "-c", self._script, "sh", *arguments],
                env=known, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        parent = psutil.Process(self.unshare.pid)
        self.main = eventually(lambda: parent.children() or self.fail(), SECONDS)[0]

    def wait(self) -> int:
        """Until it is over; returns the exit code of its process 1."""
        assert self.unshare is not None
        return self.unshare.wait(SECONDS)

    def fail(self) -> None:
        if self.unshare is None or self.unshare.poll() is not None:
            raise RuntimeError(f"it did not start, or ended: {self.log}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as root."""
        line = ["nsenter", "-t", str(self.main.pid), "--mount", "--pid", "--", *command]
        return subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)

    def processes(self) -> list[psutil.Process]:
        """All that are there but process 1."""
        return self.main.children(recursive=True)

    def names(self) -> list[str]:
        """Of these."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                found.append(process.name())
        return found

    def close(self) -> None:
        if self.unshare is not None and self.unshare.poll() is None:
            for process in psutil.Process(self.unshare.pid).children() or [self.unshare]:
                process.kill()
            self.unshare.wait(SECONDS)
        self.example.close()

    def _fill(self) -> None:
        """What an administrator puts in place before the first start."""
        server = self.example.directory / "server"
        installed(self.place / "opt/rexec/bin", users.PYTHON)
        (self.place / "opt/rexec/bin/python").symlink_to(users.PYTHON)
        self.settings.mkdir(parents=True)
        text = (ROOT / "deploy" / "rexec.toml").read_text()
        for usual, port in ((":50051", self.example.ports[0]), (":50052", self.example.ports[1])):
            text = text.replace(usual, f":{port}")
        self.configure("rexec.toml", text)
        for source, *names in (
            (server / "callers.toml", "callers.toml"), (server / "policy.toml", "policy.toml"),
            (server / "server.pem", "server.pem", "gateway.pem"), (server / "server.key", "server.key", "gateway.key"),
            (self.example.directory / "ca.pem", "ca.pem", "callers-ca.pem"),
        ):  # fmt: skip
            for name in names:
                shutil.copyfile(source, self.settings / name)
        self.configure("policy.toml", RULE, append=True)
        for file in self.settings.iterdir():
            file.chmod(0o640)
