"""A systemd that was booted for the tests, as process 1 of namespaces of its own, and the units of deploy/ in it.

It sees this machine's files through overlays, and no unit but those of deploy/. Killing it ends all that it started.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.production.deployed import ROOT, Deployed
from tests.runner import users
from tests.service.alice import RULE, SECONDS
from tests.service.programs import installed
from tests.waiting import eventually

SYSTEMD = "/lib/systemd/systemd"
UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("rexec-runner", "rexec-server", "rexec-gateway")
# What each unit of a real machine depends on, and what has nothing to do here.
_STUBS = ("sysinit", "basic", "shutdown", "network-online", "local-fs", "multi-user", "tests")
# Runs as process 1, in a mount namespace of its own.
_BOOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for place in etc opt var; do
    mkdir -p "$PLACE/$place" "$PLACE/.$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$PLACE/$place,workdir=$PLACE/.$place" "/$place"
done
mkdir -p /opt/rexec/source /opt/rexec/packages
mount --bind "$SOURCE" /opt/rexec/source
mount --bind "$PACKAGES" /opt/rexec/packages
mkdir -p /etc/sysusers.d /etc/tmpfiles.d
cp "$SOURCE/deploy/systemd/rexec.sysusers" /etc/sysusers.d/rexec.conf
cp "$SOURCE/deploy/systemd/rexec.tmpfiles" /etc/tmpfiles.d/rexec.conf
systemd-sysusers rexec.conf
systemd-tmpfiles --create rexec.conf
chgrp rexec /etc/rexec/*
mount --make-rshared / # as systemd has it, and wants it for credentials
export container=tests SYSTEMD_UNIT_PATH="$PLACE/units"
exec "$SYSTEMD" --system --unit=tests.target --log-level=warning --log-target=console --show-status=0
"""


def need_systemd() -> None:
    """Skips the test where no systemd can be booted."""
    users.need_root()
    if not os.access(SYSTEMD, os.X_OK) or not shutil.which("systemctl"):
        pytest.skip("there is no systemd here: apt-get install systemd")
    if _cgroups() is None:
        pytest.skip("no cgroup v2 is mounted here, and systemd needs one")


class Booted:
    """systemd, and what it runs."""

    def __init__(self) -> None:
        need_systemd()
        users.environment()
        self.example = Deployed()
        self._place = self.example.directory.parent / "machine"
        self._cgroup = Path(f"{_cgroups()}/rexec-tests-{os.getpid()}")
        self._fill()
        self.allow(RULE)
        self._boot()

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`systemctl` there."""
        line = ["nsenter", "-t", str(self._init.pid), "--mount", "--pid", "--", "systemctl", "--no-pager", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)

    def show(self, service: str, *properties: str) -> list[str]:
        """The values of a unit's properties."""
        asked = [f"--property={name}" for name in properties]
        told = dict(line.split("=", 1) for line in self.control("show", service, *asked).stdout.splitlines())
        return [told[name] for name in properties]

    def await_active(self) -> dict[str, str]:
        """All three, and the pid of each, as it is there."""

        def all_of_them() -> dict[str, str]:
            found = {service: self.show(service, "ActiveState", "SubState", "MainPID") for service in SERVICES}
            assert all(state[:2] == ["active", "running"] for state in found.values()), f"{found}\n{self.log}"
            return {service: state[2] for service, state in found.items()}

        return eventually(all_of_them, SECONDS)

    @property
    def log(self) -> str:
        """Of systemd, and of all three."""
        return (self._place / "log").read_text()

    def allow(self, rule: str) -> None:
        """Adds a rule to the policy, for the server to be told of."""
        with open(self._place / "etc/rexec/policy.toml", "a") as policy:
            policy.write(f'{rule}run_as = "{users.COMMAND.pw_name}"\n')

    def process(self, service: str) -> psutil.Process:
        """The main process of a service, as it is seen from here."""
        inside = self.await_active()[service]
        for process in self.processes():
            with suppress(OSError):
                if re.search(rf"^NSpid:.*\s{inside}$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE):
                    return process
        raise AssertionError(f"{service} has gone")

    def processes(self) -> list[psutil.Process]:
        """All that are there."""
        return self._init.children(recursive=True)

    def close(self) -> None:
        """Process 1 takes all others with it."""
        with suppress(psutil.NoSuchProcess):
            self._init.kill()
        self._unshare.wait(SECONDS)
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            eventually(lambda directory=directory: _remove(directory), SECONDS)
        self.example.close()

    # --- making it ---

    def _fill(self) -> None:
        """What an administrator puts in place before the first start."""
        settings, server = self._place / "etc/rexec", self.example.directory / "server"
        installed(self._place / "opt/rexec/bin", users.PYTHON)
        settings.mkdir(parents=True)
        tokens, _, gateway = self.example.ports
        text = (ROOT / "deploy" / "rexec.toml").read_text()
        (settings / "rexec.toml").write_text(text.replace(":50051", f":{tokens}"))
        for source, *names in (
            (server / "callers.toml", "callers.toml"), (server / "policy.toml", "policy.toml"),
            (server / "server.pem", "server.pem", "gateway.pem"), (server / "server.key", "server.key", "gateway.key"),
            (self.example.directory / "ca.pem", "ca.pem"),
        ):  # fmt: skip
            for name in names:
                shutil.copyfile(source, settings / name)
        (settings / "gateway.env").write_text(
            f"REXEC_GATEWAY_LISTEN=127.0.0.1:{gateway}\nREXEC_GATEWAY_TARGET=127.0.0.1:{tokens}\n"
        )
        for file in settings.iterdir():
            file.chmod(0o640)
        units = self._place / "units"
        shutil.copytree(UNITS, units)
        for name in _STUBS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        more = units / "rexec-.service.d"
        more.mkdir()
        path = "/opt/rexec/source:/opt/rexec/source/protos:/opt/rexec/packages"
        (more / "tests.conf").write_text(
            f"[Service]\nEnvironment=PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1\n"
            f"StandardOutput=append:{self._place}/log\nStandardError=inherit\n"
        )

    def _boot(self) -> None:
        self._cgroup.mkdir()
        environment = {
            "PATH": os.environ["PATH"], "PLACE": str(self._place), "SOURCE": str(ROOT), "SYSTEMD": SYSTEMD,
            "PACKAGES": sysconfig.get_path("purelib"),
        }  # fmt: skip
        line = (
            f"echo $$ >{self._cgroup}/cgroup.procs; exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc"
        )
        with open(self._place / "log", "ab") as log:
            self._unshare = subprocess.Popen(
                ["sh", "-c", f'{line} --mount-proc sh -c "$BOOT"'],
                env={**environment, "BOOT": _BOOT}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        self._init = eventually(lambda: psutil.Process(self._unshare.pid).children(), SECONDS)[0]
        eventually(lambda: self._has_booted() or self._fail(), SECONDS)

    def _has_booted(self) -> bool:
        return self.control("is-system-running").stdout.strip() in ("running", "degraded")

    def _fail(self) -> None:
        if self._unshare.poll() is not None:
            raise RuntimeError(f"systemd did not start: {self.log}")


def _cgroups() -> str | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return line.split()[1]
    return None


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:  # the kernel has not let go of its last process yet
        return False
    return True
