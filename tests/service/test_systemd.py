"""The units of deploy/systemd: what systemd says of them, and what it does with them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_client import Client, PermissionDeniedError
from tests.gateway.http import ask
from tests.runner import users
from tests.service.alice import SECONDS, begin, connect, is_whole, token
from tests.service.booted import SERVICES, UNITS, Booted
from tests.service.programs import installed
from tests.waiting import eventually

# A machine is made first, which takes long where others work too.
pytestmark = pytest.mark.timeout(400)
# How exposed each may be, in tenths of what `systemd-analyze security` says; to commands much must be open.
EXPOSED = {"rexec-server": 25, "rexec-gateway": 20, "rexec-runner": 95}
# systemd 254 was the first to know it; older ones say that they do not, and go on.
KNOWS_SUBGROUPS = 254


@pytest.fixture(scope="module")
def booted() -> Iterator[Booted]:
    """One systemd for all of these tests; each leaves all three running."""
    booted = Booted()
    try:
        booted.start()
        done = booted.control("start", "rexec.target")
        assert done.returncode == 0, done.stderr + booted.log
        yield booted
    finally:
        booted.close()


@pytest.fixture
def alice(booted: Booted) -> Iterator[Client]:
    booted.await_active()
    with connect(booted.example) as client:
        yield client


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here: apt-get install systemd")
    line = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)


def systemd_version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version").stdout)
    assert found
    return int(found[1])


def test_the_units_are_right(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing: no unknown setting, no program or unit that is missing."""
    bin_ = installed(tmp_path / "bin", "python3")
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    for unit in units.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/rexec/bin", str(bin_)))
    done = analyze("verify", *units.glob("*.service"), units / "rexec.target")
    found = done.stderr.splitlines()
    if systemd_version() < KNOWS_SUBGROUPS:
        found = [line for line in found if "Unknown key 'DelegateSubgroup'" not in line]
    assert (found, done.returncode) == ([], 0)


@pytest.mark.parametrize("service", EXPOSED)
def test_the_units_are_closed(service: str) -> None:
    """`systemd-analyze security` finds a unit no more open than it has to be."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSED[service]}", UNITS / f"{service}.service")
    assert done.returncode == 0, done.stdout


def test_all_three_run_and_answer(booted: Booted, alice: Client) -> None:
    """Installed as docs/operations.md says: a command runs as its rule's user, and the gateway answers to a token."""
    assert alice.run(["id"]).stdout.startswith(f"uid={users.COMMAND.pw_uid}({users.COMMAND.pw_name})".encode())
    example = booted.example
    known = ask(example.gateway, "GET", f"/api/poll/{token(example)}", ca=example.path("ca.pem"))
    assert (known.status, known.json["status"]) == (200, "finished")
    assert ask(example.gateway, "GET", "/api/poll/nobody", ca=example.path("ca.pem")).status == 401


def test_who_may_what(booted: Booted, alice: Client) -> None:
    """The runner alone is root. Server and gateway have users of their own, no capability, and cannot get any."""
    booted.await_active()
    execution = begin(alice)
    ours = {name: booted.process(name) for name in SERVICES}
    assert ours["rexec-runner"].uids().real == 0
    assert len({process.uids().real for process in ours.values()}) == len(ours)
    for name in ("rexec-server", "rexec-gateway"):
        status = Path(f"/proc/{ours[name].pid}/status").read_text()
        assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE), status
    said = booted.control("show", "--property=StatusText", "--value", "rexec-server").stdout
    assert said.strip() == "listens on " + ", ".join(f"127.0.0.1:{port}" for port in booted.example.ports[:2])
    assert "cgroup" in alice.info().features
    is_whole(execution)


def test_what_is_killed_is_started_again(booted: Booted, alice: Client) -> None:
    """kill -9 of each of the three: others are there soon, and a running command has not lost a byte."""
    execution = begin(alice)
    before = booted.await_active()
    for process in [booted.process(service) for service in SERVICES]:
        process.kill()
    eventually(lambda: not set(before.values()) & set(booted.await_active().values()), SECONDS)
    is_whole(execution)


def test_commands_go_on_while_all_is_stopped(booted: Booted, alice: Client) -> None:
    """`systemctl stop rexec.target` ends the three and no command; after `start` its end is what it was."""
    execution = begin(alice)
    before = [booted.process(service) for service in SERVICES]
    assert booted.control("stop", "rexec.target").returncode == 0
    eventually(lambda: not any(process.is_running() for process in before), SECONDS)
    assert "cat" in booted.names()
    assert booted.control("start", "rexec.target").returncode == 0
    booted.await_active()
    is_whole(execution)


def test_a_reload_reads_the_policy_again(booted: Booted, alice: Client) -> None:
    """`systemctl reload rexec-server`: the new rule is in force, and nothing was restarted."""
    before = booted.await_active()
    with pytest.raises(PermissionDeniedError):
        alice.run(["printf", "new"])
    rule = f'[[rule]]\nname = "new"\narguments = ["/usr/bin/printf", "new"]\nrun_as = "{users.COMMAND.pw_name}"\n'
    booted.configure("policy.toml", rule + 'callers = ["alice"]\n', append=True)
    assert booted.control("reload", "rexec-server").returncode == 0
    eventually(lambda: "policy reloaded" in booted.log, SECONDS)
    assert alice.run(["printf", "new"]).stdout == b"new"
    assert booted.await_active() == before
