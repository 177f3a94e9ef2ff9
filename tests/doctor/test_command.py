"""`rexec-server doctor` beside real servers and runners: it says what is, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rexec_client.version import __version__
from rexec_server.doctor import runner as runner_checks
from rexec_server.doctor.checks import examine
from rexec_server.doctor.finding import Level
from rexec_server.doctor.host import Host
from rexec_server.doctor.subject import Subject
from tests.doctor.elsewhere import Elsewhere
from tests.doctor.examined import RULE, dev, only, production, well
from tests.production.site import Site
from tests.runner.harness import Runner
from tests.servers import Server


def doctor(*flags: str, after: tuple[str, ...] = ("--json",), **env: str) -> tuple[int, dict[str, Any]]:
    """The program's exit code and report."""
    done = subprocess.run(
        [sys.executable, "-m", "rexec_server", *flags, "doctor", *after],
        capture_output=True, text=True, timeout=90, env={**os.environ, **env},
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if after else {"text": done.stdout}


def levels(report: dict[str, Any]) -> dict[str, str]:
    return {one["check"]: one["level"] for one in report["findings"]}


def snapshot(directory: Path) -> list[tuple[str, int, int]]:
    """What is there and when it was changed, but for what a server writes without being asked."""
    return sorted(
        (str(path), path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in directory.rglob("*")
        if not path.name.endswith("-shm")
    )


def test_beside_a_server_for_development(server: Server) -> None:
    """All that it needs is there, and nothing is touched."""
    before = snapshot(server.state_dir)
    code, report = doctor("--dev", "--state-dir", str(server.state_dir))
    assert (code, report["ok"]) == (0, True)
    assert levels(report)["runner"] == levels(report)["index"] == "ok"
    assert f"pid {server.runner_pid}, version {__version__}" in json.dumps(report)
    assert snapshot(server.state_dir) == before


def test_beside_a_production_server_with_its_own_file(tmp_path: Path) -> None:
    """With the configuration that the server has; before it runs, and while it does."""
    site = Site(tmp_path / "site")
    try:
        site.start()
        before = snapshot(site.directory)
        code, report = doctor("--config", site.path("rexec.toml"))
        assert (code, report["ok"]) == (0, True), report
        assert {"callers", "policy", "audit"} <= levels(report).keys()
        assert any(check.startswith("certificate ") for check in levels(report))
        assert snapshot(site.directory) == before
        site.end()
        assert doctor("--config", site.path("rexec.toml"))[0] == 0
    finally:
        site.close()


def test_what_fails_is_the_exit_code(tmp_path: Path) -> None:
    """1, with the line that says what to change, for people as for programs."""
    (tmp_path / "state").touch()
    flags = ("--dev", "--state-dir", str(tmp_path / "state"))
    code, report = doctor(*flags)
    assert (code, report["ok"], levels(report)["state directory"]) == (1, False, "fail")
    code, said = doctor(*flags, after=())
    assert code == 1
    lines = said["text"].splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("fail  state directory: "))
    assert "→ move it away, or name another with --state-dir" in lines[place + 1]


def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    """One finding, and no traceback; flags, variables and files are those of the server."""
    code, report = doctor(REXEC_STATE_DIR=str(tmp_path))
    assert (code, levels(report)) == (1, {"configuration": "fail"})
    assert "no callers are configured" in report["findings"][0]["found"]
    code, report = doctor("--config", str(tmp_path / "none.toml"))
    assert (code, levels(report)) == (1, {"configuration": "fail"})


def test_a_check_that_cannot_be_made_stops_no_other(tmp_path: Path) -> None:
    """It is a finding like others."""

    def check_the_moon(subject: Subject) -> Any:
        raise OSError("clouds")

    def check_the_earth(subject: Subject) -> Any:
        yield from runner_checks.check_runner(subject)

    found = list(examine(Subject(dev(tmp_path), Host()), (check_the_moon, check_the_earth)))
    assert [(one.check, one.level) for one in found] == [("the moon", Level.FAIL), ("runner", Level.OK)]
    assert "clouds" in found[0].found


# --- the runner ---


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A runner alone, in the state directory that the configurations here name."""
    alone = Runner(tmp_path / "state", "--no-cgroup")
    yield alone
    alone.close()


def test_a_runner_that_answers(runner: Runner, tmp_path: Path) -> None:
    """Its pid, its version and who it is."""
    finding = only(runner_checks.check_runner, dev(tmp_path))
    assert finding.found == f"pid {runner.pid}, version {__version__}, uid {os.geteuid()}"


def test_a_runner_that_is_not_there(tmp_path: Path) -> None:
    """Nothing wrong where the server starts one; else its unit is missing."""
    (tmp_path / "state").mkdir()
    assert well(runner_checks.check_runner, dev(tmp_path))
    finding = only(runner_checks.check_runner, dev(tmp_path, start_runner=False))
    assert (finding.level, finding.change) == (Level.FAIL, "start rexec-runner")


def test_a_runner_that_does_not_answer(tmp_path: Path) -> None:
    """It holds its lock, and says nothing: it is stopped, or does not trust us."""
    (tmp_path / "state").mkdir()
    finding = only(runner_checks.check_runner, dev(tmp_path), holders={"runner.pid": 4711})
    assert (finding.level, "pid 4711 does not answer" in finding.found) == (Level.FAIL, True)


class Told(Subject):
    """A subject whose runner says what the test wants."""

    def __init__(self, config: Any, host: Host, **info: Any) -> None:
        super().__init__(config, host)
        self.runner = {"pid": 4711, "uid": os.geteuid(), "version": __version__, **info}


@pytest.mark.parametrize(("own", "change"), [(True, "restart the server"), (False, "kill -HUP 4711")])
def test_a_runner_of_another_version(tmp_path: Path, own: bool, change: str) -> None:
    """Who brings it along depends on whose it is."""
    subject = Told(dev(tmp_path, start_runner=own), Elsewhere(), version="0.0.1")
    (finding,) = runner_checks.check_runner(subject)
    assert (finding.level, change in finding.change) == (Level.WARN, True)


USERS_RULE = '[[rule]]\nname = "t"\narguments = ["/bin/true"]\ncallers = ["alice"]\nrun_as = "nobody"\n'


@pytest.mark.parametrize(
    ("rules", "uid", "of_server", "level"),
    [
        (RULE, 0, 1000, Level.FAIL),
        (RULE, 1000, 1000, Level.OK),
        (USERS_RULE, 1000, 1000, Level.FAIL),
        (USERS_RULE, 0, 1000, Level.OK),
    ],
)
def test_who_commands_run_as(tmp_path: Path, rules: str, uid: int, of_server: int, level: Level) -> None:
    """Rules that name users need a runner that is root; beside such a one each rule names one."""
    subject = Told(production(tmp_path, rules), Elsewhere(uid=of_server), uid=uid)
    (finding,) = runner_checks.check_run_as(subject)
    assert finding.level is level


def test_without_rules_nobody_is_asked_who_runs(tmp_path: Path) -> None:
    """In --dev, and where no runner is known yet."""
    for config in (dev(tmp_path), production(tmp_path, start_runner=False)):
        assert list(runner_checks.check_run_as(Subject(config, Elsewhere()))) == []


def test_a_stopped_runner_keeps_nobody_waiting_for_ever(runner: Runner, tmp_path: Path) -> None:
    """It is there, it does not answer, and that is what is said."""
    os.kill(runner.pid, signal.SIGSTOP)
    try:
        finding = only(runner_checks.check_runner, dev(tmp_path), host=Host())
    finally:
        os.kill(runner.pid, signal.SIGCONT)
    assert (finding.level, f"pid {runner.pid} does not answer" in finding.found) == (Level.FAIL, True)
