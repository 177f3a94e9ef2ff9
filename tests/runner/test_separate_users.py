"""Three users: the runner is root, the server is one of its own, commands are a third. And what one user means."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IMODE

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.launch import Confinement, StdinMode
from rexec_server.core.spool import Channel, Reason
from tests.rpc.calls import ended, joined, run, start
from tests.runner.harness import Run, Runner
from tests.runner.users import COMMAND, CONFINED, PYTHON, SERVER, environment, need_root, prefix
from tests.servers import Server
from tests.waiting import eventually

# setpriv cannot be told to replace the interpreter of the tests, which other users cannot execute.
OTHER_PYTHON = ("sh", "-c", f'shift; exec {PYTHON} "$@"', "sh")

# Tries each thing that it is told, and tells how that went: `done`, or the error's name.
PROBE = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def trace(pid):
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'PTRACE_SEIZE')
def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
ways = {
    'read': lambda path: open(path, 'rb').read(1), 'list': os.listdir, 'signal': lambda pid: os.kill(pid, 0),
    'trace': trace, 'connect': connect, 'write': lambda path: open(path, 'ab').close(),
}
answers = {}
for name, (way, what) in json.loads(sys.argv[1]).items():
    try:
        ways[way](what)
        answers[name] = 'done'
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def place(open_dir: Path) -> Path:
    """Where state directory, keys and logs are; others can look into it, and into nothing below."""
    environment()
    keys = open_dir / "keys"
    keys.mkdir(mode=0o700)
    (keys / "alice.key").write_text("secret")
    for path in (keys, keys / "alice.key"):
        os.chown(path, SERVER.pw_uid, SERVER.pw_gid)
    (keys / "alice.key").chmod(0o600)
    return open_dir


@pytest.fixture(scope="module")
def separate_runner(place: Path) -> Iterator[Runner]:
    """A runner that is root and came first, for a server that is not."""
    runner = Runner(place / "state", "--no-cgroup", "--server-user", SERVER.pw_name, dev=False)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def separate_server(place: Path, separate_runner: Runner) -> Iterator[Server]:
    """That server, which finds the runner there."""
    server = Server(
        separate_runner.state_dir, "--no-start-runner", env=environment(), cwd=place,
        prefix=(*prefix(SERVER), *OTHER_PYTHON),
    )  # fmt: skip
    yield server
    server.close()


def probe(runner: Runner, tries: dict[str, tuple[str, object]], confinement: Confinement) -> dict[str, str]:
    run = runner.run(PYTHON, "-c", PROBE, json.dumps(tries), confinement=confinement)
    assert run.wait().exit_code == 0, run.output(Channel.STDERR)
    answers: dict[str, str] = json.loads(run.output())
    return answers


def tries_of(process: str, pid: int) -> dict[str, tuple[str, object]]:
    """The names say whose, and what."""
    return {
        f"{process}: environ": ("read", f"/proc/{pid}/environ"),
        f"{process}: memory": ("read", f"/proc/{pid}/mem"),
        f"{process}: descriptors": ("list", f"/proc/{pid}/fd"),
        f"{process}: trace": ("trace", pid),
        f"{process}: signal": ("signal", pid),
    }


def tries_at(state_dir: Path, run: Run) -> dict[str, tuple[str, object]]:
    return {
        "key": ("read", str(state_dir.parent / "keys" / "alice.key")),
        "keys": ("list", str(state_dir.parent / "keys")),
        "state": ("list", str(state_dir)),
        "spool": ("list", str(state_dir / "spool")),
        "output": ("read", str(run.directory / f"{0:020d}.log")),
        "forged output": ("write", str(run.directory / f"{0:020d}.log")),
        "runner.sock": ("connect", str(state_dir / "runner.sock")),
        "control": ("connect", str(run.directory / "control")),
    }


def owner_and_mode(path: Path) -> tuple[str, str, str]:
    status = path.stat()
    return pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name, oct(S_IMODE(status.st_mode))


def test_a_server_of_another_user_does_all_its_work(separate_server: Server) -> None:
    """Start, output as it comes, input and cancellation, also after a shim was killed and the runner took over."""
    server = separate_server
    answer = run(server, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (answer.execution.exit_code, set(joined(answer.chunks).split())) == (3, {b"out", b"err"})
    start(server, "cat", exec_id="fed", stdin_mode=api.STDIN_MODE_OPEN)
    following = server.stub.Follow(api.FollowRequest(exec_id="fed", offset=0), timeout=30)
    assert next(following).WhichOneof("event") == "snapshot"
    os.kill(server.shim_pid("fed"), signal.SIGKILL)
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="fed", data=b"in\n"))
    assert b"in\n" in (joined(message.output.chunks) for message in following)  # until it is there
    server.stub.Cancel(api.CancelRequest(exec_id="fed"))
    assert [message.WhichOneof("event") for message in following][-1] == "end"
    assert ended(server, "fed").reason == pb.REASON_CANCELLED


def test_who_owns_what(separate_server: Server, separate_runner: Runner) -> None:
    """What the runner makes is for the server's group to read, its sockets to connect to, and for nobody else."""
    state = separate_runner.state_dir
    run = separate_runner.run("cat", confinement=CONFINED, stdin_mode=StdinMode.OPEN)
    eventually(lambda: "control" in run.files)
    root, group, own = "root", grp.getgrgid(SERVER.pw_gid).gr_name, SERVER.pw_name
    assert {name: owner_and_mode(state / name) for name in ("", "spool", "runner.sock", "runner.pid")} == {
        "": (own, group, "0o700"),
        "spool": (root, group, "0o750"),
        "runner.sock": (root, group, "0o660"),
        "runner.pid": (root, group, "0o640"),
    }
    assert owner_and_mode(state / "index.sqlite")[::2] == (own, "0o600")
    files = {name: owner_and_mode(run.directory / name) for name in ("", *run.files)}
    fifo = (COMMAND.pw_name, group, "0o600")
    assert files == {
        "": (root, group, "0o750"),
        "control": (root, group, "0o660"),
        **dict.fromkeys(("lock", "start", "request", "exit.tmp", "stdin"), (root, group, "0o640")),
        **dict.fromkeys(("out", "err", "in"), fifo),
    }
    run.end(grace=0)
    run.wait()


def test_t_cn_03_a_command_of_another_user_reaches_nothing(separate_server: Server, separate_runner: Runner) -> None:
    """The tier of separate users: no memory, key, spool or socket of server, runner and shims, and no signal."""
    own = separate_runner.run("sleep", "300", confinement=CONFINED)
    (own.directory / f"{0:020d}.log").touch()
    audit = separate_runner.state_dir / "audit.jsonl"
    audit.touch()
    processes = {"server": separate_server.pid, "runner": separate_runner.pid, "shim": own.shim_pid}
    tries = tries_at(separate_runner.state_dir, own) | {"audit": ("read", str(audit))}
    for name, pid in processes.items():
        tries |= tries_of(name, pid)
    expected = {
        name: "EPERM" if name.endswith((": trace", ": signal")) else "EACCES"
        for name in tries
    }  # fmt: skip
    assert probe(separate_runner, tries, CONFINED) == expected
    own.end(grace=0)
    own.wait()


def test_t_cn_03_a_command_of_the_same_user(start_runner: Callable[..., Runner], place: Path) -> None:
    """The one-user tier: what is in memory is closed; signals, files and sockets of its own user are not."""
    home = place / "one-user"
    home.mkdir()
    os.chown(home, SERVER.pw_uid, SERVER.pw_gid)
    (home / "keys").symlink_to(place / "keys")
    options = {"prefix": prefix(SERVER), "python": PYTHON, "env": environment(), "cwd": "/", "dev": False}
    runner = start_runner("--no-cgroup", "--server-uid", "0", state_dir=home / "state", **options)
    own = runner.run("sh", "-c", "echo x; sleep 300")
    eventually(own.output)
    tries = tries_at(runner.state_dir, own) | tries_of("runner", runner.pid) | tries_of("shim", own.shim_pid)
    closed = {": environ": "EACCES", ": memory": "EACCES", ": descriptors": "EACCES", ": trace": "EPERM"}
    expected = {name: closed.get(name[name.find(":") :], "done") for name in tries}
    assert probe(runner, tries, Confinement(no_new_privileges=True, drop_capabilities=True)) == expected


def test_a_stranger_who_gets_to_the_socket_is_not_served(separate_runner: Runner) -> None:
    """The runner asks the kernel who is there, and hangs up, should a directory be too open and the group shared."""
    script = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    print('connected')
    try:
        sock.sendall(b'\\0\\0\\0\\x0e{"op": "info"}')
        print(sock.recv(1))
    except ConnectionError:
        print(b'')
"""
    separate_runner.state_dir.chmod(0o711)
    try:
        stranger = CONFINED._replace(groups=(SERVER.pw_gid,))
        path = str(separate_runner.state_dir / "runner.sock")
        run = separate_runner.run(PYTHON, "-c", script, path, confinement=stranger)
        run.wait()
    finally:
        separate_runner.state_dir.chmod(0o700)
    assert run.output() == b"connected\nb''\n"


def test_commands_without_a_user_have_roots_own_group(separate_runner: Runner) -> None:
    """The server's group is the runner's concern, and is not handed to what it starts."""
    run = separate_runner.run("id", "-g")
    assert run.wait().exit_code == 0
    assert run.output() == b"0\n"


def test_the_server_may_come_first(start_runner: Callable[..., Runner], place: Path) -> None:
    """A state directory that is there is used as it is, and a spool of root's own is opened to the server's group."""
    state = place / "first"
    (state / "spool").mkdir(parents=True, mode=0o700)
    os.chown(state, SERVER.pw_uid, SERVER.pw_gid)
    state.chmod(0o700)
    runner = start_runner("--no-cgroup", "--server-user", str(SERVER.pw_uid), state_dir=state, dev=False)
    assert owner_and_mode(state / "spool")[1:] == (grp.getgrgid(SERVER.pw_gid).gr_name, "0o750")
    assert runner.run("true").wait().reason == Reason.EXITED


@pytest.mark.parametrize(
    ("user", "prepare", "why"),
    [
        ("no-such-user", None, "there is no such user"),
        ("99999999999", None, "there is no such user"),
        (SERVER.pw_name, "spool", "cannot use"),
        (SERVER.pw_name, "runner.pid", "cannot use"),
    ],
)
def test_refusals_of_a_runner_for_another_user(place: Path, user: str, prepare: str | None, why: str) -> None:
    """Users that are not, and names that the server has made lead elsewhere: one line, and exit code 78."""
    state = place / uuid.uuid4().hex
    if prepare:
        state.mkdir()
        (state / prepare).symlink_to(place / "elsewhere")
    refused = run_program([sys.executable], state, user)
    assert refused.returncode == 78
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (place / "elsewhere").exists()


def test_only_root_serves_another_users_server(place: Path) -> None:
    """A runner without root would lock the server out of what it makes, so it says so at once."""
    refused = run_program([*prefix(COMMAND), PYTHON], place / "never", SERVER.pw_name)
    assert refused.returncode == 78
    assert "only a runner that is root" in refused.stderr
    assert not (place / "never").exists()


def run_program(program: list[str], state: Path, user: str) -> subprocess.CompletedProcess[str]:
    command = [*program, "-m", "rexec_server.runner", "--state-dir", str(state), "--server-user", user]
    return subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, timeout=20)


def test_a_new_version_gives_what_the_first_would_have(open_dir: Path, start_runner: Callable[..., Runner]) -> None:
    """The runner's group is the server's by now, and a command that names no user must not get it from a successor."""
    need_root()
    runner = start_runner("--no-cgroup", "--server-user", SERVER.pw_name, state_dir=open_dir / "upgraded", dev=False)
    ask = "id -g; id -G; cat /proc/self/oom_score_adj; ulimit -n"
    before = runner.sh(ask)
    assert before.wait(60).exit_code == 0
    for count in (1, 2):
        os.kill(runner.pid, signal.SIGHUP)
        eventually(lambda count=count: runner.log.count("becomes version") == count, within=60)
        after = runner.sh(ask)
        assert after.wait(60).exit_code == 0
        assert after.output() == before.output()
