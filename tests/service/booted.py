"""A systemd that was booted for the tests, and the units of deploy/ in it, and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.production.deployed import ROOT
from tests.runner import users
from tests.service.alice import SECONDS
from tests.service.machine import PYTHON_PATH, Machine
from tests.waiting import eventually

SYSTEMD = "/lib/systemd/systemd"
UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("rexec-runner", "rexec-server", "rexec-gateway")
# What each unit of a real machine depends on, and what has nothing to do here.
_STUBS = ("sysinit", "basic", "shutdown", "network-online", "local-fs", "multi-user", "tests")
# What docs/operations.md has an administrator type, but for what systemd is told: here it comes afterwards.
_PAGE = (ROOT / "docs" / "operations.md").read_text()
_TYPED = _PAGE.partition("\n## systemd\n")[2].partition("```sh\n")[2].partition("```")[0].splitlines()
_INSTALL = [line for line in _TYPED if "systemctl" not in line and "/etc/systemd/system" not in line]
# It wants its mounts shared, and no cgroups but version 2.
_BOOT = f"""
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /etc/sysusers.d /etc/tmpfiles.d
cd "$SOURCE"
{chr(10).join(_INSTALL)}
cd /
mount --make-rshared /
export container=tests SYSTEMD_UNIT_PATH="$PLACE/units"
exec "$SYSTEMD" --system --unit=tests.target --log-level=warning --log-target=console --show-status=0
"""


class Booted(Machine):
    """systemd, and what it runs."""

    def __init__(self) -> None:
        cgroups = _need_systemd()
        super().__init__(_BOOT, namespaces=("--cgroup", "--uts", "--ipc"))
        self._cgroup = Path(f"{cgroups}/rexec-tests-{os.getpid()}")
        _, tokens, gateway = self.example.ports
        self.configure(
            "gateway.env", f"REXEC_GATEWAY_LISTEN=127.0.0.1:{gateway}\nREXEC_GATEWAY_TARGET=127.0.0.1:{tokens}\n"
        )
        self.configure("policy.toml", f'run_as = "{users.COMMAND.pw_name}"\n', append=True)
        self._add_units()

    def start(self) -> None:
        """Boots it, in a cgroup of its own, which is the root of those that it sees."""
        self._cgroup.mkdir()
        enter = ("sh", "-c", 'echo $$ >"$1"; shift; exec "$@"', "sh", f"{self._cgroup}/cgroup.procs")
        self.boot(prefix=enter, SYSTEMD=SYSTEMD)
        eventually(lambda: self._has_booted() or self.fail(), SECONDS)

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`systemctl` there."""
        return self.run("systemctl", "--no-pager", *arguments)

    def await_active(self) -> dict[str, str]:
        """All three, and the pid of each, as it is there."""

        def all_of_them() -> dict[str, str]:
            told = self.control("show", "--property=SubState,MainPID", *SERVICES).stdout
            found = [dict(line.split("=", 1) for line in block.splitlines()) for block in told.split("\n\n")]
            assert [one.get("SubState") for one in found] == ["running"] * len(SERVICES), f"{told}\n{self.log}"
            return {service: one["MainPID"] for service, one in zip(SERVICES, found, strict=True)}

        return eventually(all_of_them, SECONDS)

    def process(self, service: str) -> psutil.Process:
        """The main process of a service, as it is seen from here."""
        inside = self.await_active()[service]
        for process in self.processes():
            with suppress(OSError):
                if re.search(rf"^NSpid:.*\s{inside}$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE):
                    return process
        raise AssertionError(f"{service} has gone")

    def close(self) -> None:
        super().close()
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            eventually(lambda directory=directory: _remove(directory), SECONDS)

    def _add_units(self) -> None:
        units = self.place / "units"
        shutil.copytree(UNITS, units)
        for name in _STUBS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        more = units / "rexec-.service.d"
        more.mkdir()
        (more / "tests.conf").write_text(
            f"[Service]\nEnvironment=PYTHONPATH={PYTHON_PATH} PYTHONDONTWRITEBYTECODE=1\n"
            f"StandardOutput=append:{self.place}/log\nStandardError=inherit\n"
        )

    def _has_booted(self) -> bool:
        return self.control("is-system-running").stdout.strip() in ("running", "degraded")


def _need_systemd() -> str:
    """Where cgroup v2 is mounted. Skips the test where no systemd can be booted."""
    users.need_root()
    if not os.access(SYSTEMD, os.X_OK) or not shutil.which("systemctl"):
        pytest.skip("there is no systemd here: apt-get install systemd")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return line.split()[1]
    pytest.skip("no cgroup v2 is mounted here, and systemd needs one")


def _remove(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:  # the kernel has not let go of its last process yet
        return False
    return True
