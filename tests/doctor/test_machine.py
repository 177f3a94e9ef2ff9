"""Checks of the machine: each finds what it is for, and is content otherwise."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from rexec_client.version import __version__
from rexec_server.core import pid_file
from rexec_server.doctor import cgroups, clock, limits, software, state
from rexec_server.doctor.finding import Level
from rexec_server.doctor.host import Host, Limit, Room
from rexec_server.doctor.subject import Check
from tests.doctor.elsewhere import WELL
from tests.doctor.examined import dev, findings, only, production, well

NOFILE, NPROC = resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC
MIB = 1 << 20


@pytest.mark.parametrize(
    "check",
    [
        software.check_python,
        software.check_packages,
        software.check_kernel,
        cgroups.check_cgroup,
        clock.check_clock,
        limits.check_open_files,
        limits.check_processes,
        limits.check_inotify,
        state.check_filesystem,
        state.check_room,
    ],
)
def test_a_machine_on_which_all_is_well(check: Check, tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong."""
    assert well(check, production(tmp_path))


@pytest.mark.parametrize(
    ("check", "facts", "level", "says"),
    [
        (software.check_python, {"python": (3, 10)}, Level.FAIL, "Python 3.10"),
        (software.check_packages, {"installed": {"grpcio": "1.90.0"}}, Level.WARN, "not installed as a package"),
        (
            software.check_packages,
            {"installed": {"rexec": "0.0.1", "grpcio": "1.90.0"}},
            Level.WARN,
            f"the code is of rexec {__version__}, and what is installed says 0.0.1",
        ),
        (software.check_packages, {"installed": {"rexec": __version__}}, Level.FAIL, "grpcio is missing"),
        (
            software.check_packages,
            {"installed": {"rexec": __version__, "grpcio": "1.9.9"}},
            Level.FAIL,
            "grpcio is 1.9.9 and must be 1.85.1",
        ),
        (
            software.check_packages,
            {"requirements": ["grpcio[x] <9,>=1.91 ; extra == 'tokens'"]},
            Level.FAIL,
            "grpcio is 1.90.0 and must be 1.91",
        ),
        (software.check_kernel, {"missing_calls": ["pidfd_open"]}, Level.FAIL, "pidfd_open"),
        (software.check_kernel, {"kernel": "6.8.0-45-generic"}, Level.WARN, "LOST"),
        (cgroups.check_cgroup, {"delegated_cgroup": None}, Level.WARN, "none is delegated"),
        (cgroups.check_cgroup, {"delegated_cgroup": None, "cgroup_mount": None}, Level.WARN, "not mounted"),
        (cgroups.check_cgroup, {"cgroup_controllers": ["pids"]}, Level.WARN, "without memory, cpu"),
        (clock.check_clock, {"now": 1.6e9}, Level.FAIL, "before 2026"),
        (clock.check_clock, {"boot_time": 1000.0}, Level.WARN, "set later"),
        (clock.check_clock, {"synchronised": False}, Level.WARN, "nobody synchronises it"),
        (limits.check_open_files, {"limits": {NOFILE: Limit(256, 256)}}, Level.FAIL, "may need 768"),
        (limits.check_open_files, {"limits": {NOFILE: Limit(1024, 1 << 20)}}, Level.WARN, "followers"),
        (
            limits.check_processes,
            {"uid": 1000, "limits": {**WELL["limits"], NPROC: Limit(200, 200)}},
            Level.FAIL,
            "user's",
        ),
        (limits.check_processes, {"sysctl": {"kernel/pid_max": 128}}, Level.FAIL, "kernel.pid_max is 128"),
        (limits.check_processes, {"cgroup_processes": 64}, Level.FAIL, "pids.max of our cgroup is 64"),
        (limits.check_inotify, {"sysctl": {}}, Level.WARN, "there is none"),
        (
            limits.check_inotify,
            {"sysctl": {"fs/inotify/max_user_watches": 8, "fs/inotify/max_user_instances": 1}},
            Level.WARN,
            "8 watches; 64 executions need 128",
        ),
        (state.check_filesystem, {"filesystem": "nfs4"}, Level.FAIL, "is on nfs4"),
        (state.check_filesystem, {"lacks": ["splice"]}, Level.FAIL, "ext4 lacks splice"),
        (state.check_filesystem, {"filesystem": "tmpfs"}, Level.WARN, "restart of the machine"),
        (state.check_filesystem, {"lacks": None}, Level.WARN, "could not be tried"),
        (state.check_room, {"room": Room(MIB, None)}, Level.FAIL, "1 MiB: not enough for one execution"),
        (state.check_room, {"room": Room(100 * MIB, None)}, Level.WARN, "64 executions may keep 4 GiB"),
        (state.check_room, {"room": Room(1 << 50, 3)}, Level.FAIL, "3: not enough"),
        (state.check_room, {"room": Room(1 << 50, 300)}, Level.WARN, "300; 64 executions"),
    ],
)
def test_what_is_wrong_is_found(check: Check, facts: dict[str, Any], level: Level, says: str, tmp_path: Path) -> None:
    """Each thing that can be wrong is said, as bad as it is, with what to change."""
    wrong = [finding for finding in findings(check, production(tmp_path), **facts) if finding.level is not Level.OK]
    assert [finding.level for finding in wrong] == [level]
    assert says in wrong[0].found


def test_cgroup_limits_that_rules_declare_and_nobody_can_hold(tmp_path: Path) -> None:
    """Such a server refuses to start; doctor says it before."""
    rules = '[[rule]]\nname = "t"\narguments = ["/bin/true"]\ncallers = ["alice"]\ncgroup.memory = "64M"\n'
    finding = only(cgroups.check_cgroup, production(tmp_path, rules), cgroup_controllers=["pids", "cpu"])
    assert (finding.level, finding.found) == (Level.FAIL, "rules declare cgroup.memory, which are not there")


def test_a_state_directory_from_the_future(tmp_path: Path) -> None:
    """A clock that went back makes nonsense of expiry."""
    config = production(tmp_path)
    index = Path(config.state_dir, "index.sqlite")
    index.touch()
    os.utime(index, (WELL["now"] + 7200,) * 2)
    finding = only(clock.check_clock, config)
    assert (finding.level, "7200 s in the future" in finding.found) == (Level.FAIL, True)


def test_in_dev_a_clock_may_be_as_it_likes(tmp_path: Path) -> None:
    """There are no tokens whose time it must know."""
    assert well(clock.check_clock, dev(tmp_path), synchronised=False)


def test_this_machine(tmp_path: Path) -> None:
    """Each fact can be had here, and asking leaves nothing behind."""
    host = Host()
    assert host.python >= software.OLDEST_PYTHON
    assert host.installed("grpcio")
    assert host.installed("no-such-package") is None
    assert any("grpcio" in requirement for requirement in host.requirements())
    assert host.missing_calls() == []
    assert host.limit(NOFILE).soft == resource.getrlimit(NOFILE)[0]
    assert host.limit(NOFILE, pid=2**30) == host.limit(NOFILE)
    assert host.sysctl("kernel/pid_max")
    assert host.sysctl("kernel/no_such") is None
    assert host.boot_time < host.now
    assert host.synchronised in (True, False, None)
    assert host.room(str(tmp_path)).free_bytes > 0
    assert host.filesystem(str(tmp_path))
    assert host.filesystem("/proc") == "proc"
    assert host.lacks(str(tmp_path)) in ([], None)
    assert host.lacks("/proc") is None
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_lock_is_looked_up(tmp_path: Path) -> None:
    """Without taking it, which could keep a server from starting."""

    path = str(tmp_path / "server.pid")
    assert Host().holder(path) is None
    lock = pid_file.hold(path)
    assert Host().holder(path) == os.getpid()
    os.close(lock)
    assert Host().holder(path) is None
