"""What a confined command is and may be: read from the kernel, in the command itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rexec_server.core.launch import Confinement, Limits, StderrMode, StdinMode
from rexec_server.core.spool import Channel, Reason
from tests.runner.harness import Run, Runner, runs
from tests.runner.users import COMMAND, CONFINED, PYTHON, SERVER, environment, need_root, prefix
from tests.waiting import eventually

NO_CAPABILITIES = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
# Asked in a process that the command executes, so what an exec gives back would be seen.
PROBE = """
import json, os, subprocess, sys
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())
child = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout
print(json.dumps({
    'fds': sorted(os.listdir('/proc/self/fd'), key=int), 'umask': os.umask(0), 'cwd': os.getcwd(),
    'stdin': sys.stdin.read(), 'groups': os.getgroups(), 'uids': os.getresuid(), 'gids': os.getresgid(),
    'environment': sorted(os.environ), 'status': dict(line.split(':\\t', 1) for line in child.splitlines()),
}))
"""


def answer(run: Run) -> Any:
    """What a probe printed."""
    record = run.wait()
    assert record.exit_code == 0, (record, run.output(Channel.STDERR))
    return json.loads(run.output())


def start_error(run: Run) -> tuple[str, str]:
    """Why it did not start, which answer and record both say."""
    record = run.wait()
    assert record.start_error is not None, record
    assert (record.reason, record.exit_code, record.signal) == (Reason.START_FAILED, None, None)
    assert run.answer["start_error"] == list(record.start_error)
    return record.start_error


@pytest.fixture
def unprivileged_runner(request: pytest.FixtureRequest, start_runner: Callable[..., Runner], open_dir: Path) -> Runner:
    """A runner of a user who is not root, not for developers: the one-user tier. Its parameter is setpriv's flags."""
    flags = getattr(request, "param", ())
    env, place = environment(), open_dir / "unprivileged"
    place.mkdir(exist_ok=True)
    os.chown(place, SERVER.pw_uid, SERVER.pw_gid)
    options = {"prefix": prefix(SERVER, *flags), "python": PYTHON, "env": env, "cwd": "/", "dev": False}
    return start_runner("--no-cgroup", "--server-uid", "0", state_dir=place / "state", **options)


@pytest.mark.parametrize("confinement", [
    CONFINED, Confinement(no_new_privileges=True, drop_capabilities=True),
], ids=["another user", "root without capabilities"])  # fmt: skip
def test_t_cn_01_what_a_confined_command_is(root_runner: Runner, open_dir: Path, confinement: Confinement) -> None:
    """No privilege, no capability, no descriptor too many, and umask, directory and input as they were declared."""
    seen = answer(
        root_runner.run(PYTHON, "-c", PROBE, confinement=confinement, umask=0o077, working_directory=str(open_dir))
    )
    status = seen["status"]
    assert {name: status[name] for name in NO_CAPABILITIES} == NO_CAPABILITIES
    assert status["NoNewPrivs"] == "1"
    assert (seen["fds"], seen["umask"], seen["cwd"]) == (["0", "1", "2", "3"], 0o077, str(open_dir))
    assert seen["stdin"] == ""
    assert seen["uids"] == [confinement.user or 0] * 3
    assert seen["gids"] == [confinement.group or 0] * 3


def test_without_confinement_a_command_is_as_its_runner(root_runner: Runner) -> None:
    """What is not declared is not done: the probe above sees a difference."""
    status = answer(root_runner.run(PYTHON, "-c", PROBE))["status"]
    assert status["NoNewPrivs"] == "0"
    assert int(status["CapEff"], 16) != 0
    assert status["CapBnd"] == status["CapEff"]


@pytest.mark.parametrize("groups", [(), (SERVER.pw_gid,), (4, 27, 1000)])
def test_t_cn_02_the_groups_are_exactly_the_declared(
    start_runner: Callable[..., Runner], tmp_path: Path, groups: tuple[int, ...]
) -> None:
    """Root's own supplementary groups are not handed to another user."""
    need_root()
    runner = start_runner("--no-cgroup", prefix=("setpriv", "--groups", "0,4,27", "--"))
    assert Path(f"/proc/{runner.pid}/status").read_text().count("Groups:\t0 4 27") == 1
    seen = answer(runner.run(PYTHON, "-c", PROBE, confinement=CONFINED._replace(groups=groups)))
    assert sorted(seen["groups"]) == sorted(groups)
    assert seen["gids"] == [COMMAND.pw_gid] * 3


def test_setuid_programs_raise_nothing(root_runner: Runner, open_dir: Path) -> None:
    """no_new_privs takes the effect of the set-user-id bit; without it that alone is left, and no capability."""
    program = open_dir / "setuid-cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    for declared, uid in ((True, COMMAND.pw_uid), (False, 0)):
        confinement = CONFINED._replace(no_new_privileges=declared)
        run = root_runner.run(str(program), "/proc/self/status", confinement=confinement)
        assert run.wait().exit_code == 0
        status = dict(line.split(":\t") for line in run.output().decode().splitlines())
        assert status["Uid"].split()[1] == str(uid)
        assert {name: status[name] for name in NO_CAPABILITIES} == NO_CAPABILITIES


def test_directory_and_program_are_looked_at_as_the_user(root_runner: Runner, open_dir: Path) -> None:
    """What only root can enter or execute is a failure to start for others."""
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy("/bin/true", closed / "true")
    confined = {"confinement": CONFINED}
    assert start_error(root_runner.run("true", working_directory=str(closed), **confined))[0] == "EACCES"
    assert start_error(root_runner.run(f"{closed}/true", **confined))[0] == "EACCES"
    assert root_runner.run(f"{closed}/true", working_directory=str(closed)).wait().exit_code == 0


@pytest.mark.parametrize("mode", [StderrMode.SEPARATE, StderrMode.MERGED])
def test_another_user_opens_its_streams_by_name(root_runner: Runner, mode: StderrMode) -> None:
    """/dev/stdin and /dev/stdout lead to files that the command's own user may open, in a directory that it may not."""
    script = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr; ls ${0%/*}"
    run = root_runner.run(
        "sh", "-c", script, str(root_runner.state_dir / "spool" / "x"), confinement=CONFINED, stderr_mode=mode,
        stdin_mode=StdinMode.BYTES, initial_stdin=b"in\n",
    )  # fmt: skip
    assert run.wait().exit_code == 2
    output = run.output() + run.output(Channel.STDERR)
    assert output.startswith(b"in\nout\nerr\nls: ")
    assert b"Permission denied" in output
    fed = root_runner.run("cat", "/dev/stdin", confinement=CONFINED, stdin_mode=StdinMode.OPEN)
    fed.stdin(0, b"fed")
    eventually(lambda: fed.output() == b"fed")
    fed.stdin(3, eof=True)
    assert fed.wait().exit_code == 0


def test_the_process_limit_binds_another_user(root_runner: Runner) -> None:
    """One process too many of that user is EAGAIN in the exec, and within the command in its own fork."""
    others = [root_runner.run("sleep", "300", confinement=CONFINED) for _ in range(2)]
    refused = root_runner.run("true", confinement=CONFINED, limits=Limits(processes=1))
    assert start_error(refused)[0] == "EAGAIN"
    for other in others:
        other.end(grace=0)
        other.wait()


def test_the_process_limit_does_not_bind_root(root_runner: Runner) -> None:
    """Linux exempts root from RLIMIT_NPROC: a limit on a root command's processes needs a cgroup."""
    assert root_runner.sh("sh -c 'sh -c true; true'; true", limits=Limits(processes=1)).wait().exit_code == 0


@pytest.mark.parametrize(
    ("confinement", "name", "text"),
    [
        (Confinement(memory_bytes=1 << 20), "ENOTSUP", "none is delegated"),
        (Confinement(processes=10), "ENOTSUP", "none is delegated"),
        (Confinement(cpus=0.5), "ENOTSUP", "none is delegated"),
        (Confinement(user=1), "EINVAL", "could not become user 1: no group"),
    ],
)
def test_t_cn_10_what_is_declared_and_cannot_be_had(
    root_runner: Runner, confinement: Confinement, name: str, text: str
) -> None:
    """A failure to start that says which step, and never a command with less than its rule declares."""
    found, message = start_error(root_runner.run("true", confinement=confinement))
    assert found == name
    assert text in message


def test_t_cn_10_what_only_root_can_give(unprivileged_runner: Runner) -> None:
    """A runner that is not root changes no user, and drops no capabilities where a setuid program could raise them."""
    name, message = unprivileged_runner.run("true", confinement=CONFINED).answer["start_error"]
    assert (name, f"cannot be given to user {COMMAND.pw_uid}" in message) == ("EPERM", True)
    name, message = start_error(unprivileged_runner.run("true", confinement=Confinement(drop_capabilities=True)))
    assert (name, message[:41]) == ("EPERM", "could not empty its capability bounding s")


@pytest.mark.parametrize(
    "unprivileged_runner",
    [(), ("--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw")],
    ids=["without capabilities", "with an ambient one"],
    indirect=True,
)
def test_t_cn_01_an_unprivileged_runner_gives_no_privileges(unprivileged_runner: Runner) -> None:
    """The bounding set stays, which only root can change; no_new_privs keeps every exec from taking out of it."""
    confinement = Confinement(no_new_privileges=True, drop_capabilities=True)
    status = answer(unprivileged_runner.run(PYTHON, "-c", PROBE, confinement=confinement))["status"]
    expected = {name: value for name, value in NO_CAPABILITIES.items() if name != "CapBnd"}
    assert {name: status[name] for name in expected} == expected
    assert (status["NoNewPrivs"], status["Uid"].split()) == ("1", [str(SERVER.pw_uid)] * 4)


def test_runner_and_shim_are_not_dumpable_and_a_command_is(unprivileged_runner: Runner) -> None:
    """/proc belongs to root for a process that keeps its memory to itself, and to its user for others."""
    run = unprivileged_runner.run("sleep", "300")
    owners = [Path(f"/proc/{pid}/environ").stat().st_uid for pid in (unprivileged_runner.pid, run.shim_pid, run.pid)]
    assert owners == [0, 0, SERVER.pw_uid]


def test_an_undumpable_runner_without_root_does_all_its_work(unprivileged_runner: Runner) -> None:
    """Takeover of a killed shim, a restart, input, signals and the end of trees work by what /proc still tells."""
    runner = unprivileged_runner
    orphaned = runner.run("sh", "-c", "echo a; sleep 300 & cat; exit 3", stdin_mode=StdinMode.OPEN)
    survivor = runner.run("sh", "-c", "cat; exit 4", stdin_mode=StdinMode.OPEN)
    orphaned.kill_shim()
    orphaned.stdin(0, b"b\n", eof=True)
    record = orphaned.wait()
    assert (record.exit_code, record.leftover_processes, record.written_by) == (3, 1, "runner")
    assert orphaned.output() == b"a\nb\n"
    runner.restart()
    survivor.stdin(0, b"c\n", eof=True)
    assert survivor.wait().exit_code == 4
    late = runner.run("sh", "-c", "sleep 300 & sleep 300")
    runner.restart()
    late.kill_shim()
    late.end(grace=0.1)
    record = late.wait()
    assert (record.reason, record.written_by) == (Reason.CANCELLED, "runner")
    assert not runs(late.pid)


def test_a_command_that_became_root_harms_no_runner(unprivileged_runner: Runner, open_dir: Path) -> None:
    """A setuid program may put itself beyond our signals; that ends neither its shim nor the runner."""
    program = open_dir / "setuid-setpriv"
    shutil.copy(shutil.which("setpriv") or "", program)
    program.chmod(0o4755)
    run = unprivileged_runner.run(str(program), "--reuid=0", "sleep", "300")
    eventually(lambda: cmdline(run.pid).startswith(b"sleep"))  # then it is root for good
    run.end(grace=0)
    for group in (True, False):
        run.signal(15, group=group)
    run.kill_shim()
    run.tell("attend")
    assert unprivileged_runner.run("true").wait().exit_code == 0
    os.kill(run.pid, 9)
    assert run.wait().reason == Reason.CANCELLED


def test_what_a_stranger_is_told_is_no_status() -> None:
    """To those who may not trace a process /proc gives exit code 0, whatever it was: that is taken for nothing."""
    script = """
import os, sys
from rexec_server.runner.linux import foreign_status
print(foreign_status(int(sys.argv[1]), os.pidfd_open(int(sys.argv[1]))))
"""
    env = environment()
    with subprocess.Popen(["sh", "-c", "exit 3"]) as zombie:
        eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        told = [
            subprocess.run([*who, PYTHON, "-c", script, str(zombie.pid)], env=env, cwd="/", capture_output=True).stdout
            for who in ((), prefix(COMMAND))
        ]
    assert told == [b"Status(exit_code=3, signal=None)\n", b"None\n"]


def test_t_cn_08_one_thread_forks(root_runner: Runner) -> None:
    """No command is started from a thread that could end before it; its parent has no other thread."""
    run = root_runner.run("sleep", "300")
    assert [len(os.listdir(f"/proc/{pid}/task")) for pid in (root_runner.pid, run.shim_pid)] == [1, 1]
    run.end(grace=0)
    run.wait()


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
