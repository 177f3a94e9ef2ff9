"""From one installed version of rexec to another and back, with real wheels: no execution notices."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_server.runner.wire import Message
from tests.rpc import calls
from tests.runner.harness import Client
from tests.servers import Server
from tests.service.releases import Releases
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

WAIT = 90.0
OLD, NEW, BROKEN, STRANGE = "1000.0.1", "1000.0.2", "1000.0.3", "1000.0.4"
# Numbers without a pause until a file is there; then how many, and a code of its own.
TALKER = 'i=0; until [ -e "$0" ]; do i=$((i+1)); echo $i; sleep 0.002; done; echo last $i; exit 4'


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Two versions that work, one that cannot be imported, and one that would not understand what it is left."""
    releases = Releases(tmp_path_factory.mktemp("releases"))
    for version in (OLD, NEW):
        releases.build(version)
    for version in (BROKEN, STRANGE):
        releases.copy(NEW, version)
    _edit(releases.place(BROKEN) / "rexec_server/runner/loop.py", "import heapq", "import a_module_that_is_not_there")
    _edit(releases.place(STRANGE) / "rexec_server/runner/handover.py", "FORMAT = 1", "FORMAT = 999")
    return releases


@pytest.fixture
def releases(built: Releases) -> Releases:
    """All of them are there, and the old one is in use."""
    built.use(OLD)
    return built


class Machine:
    """A server, and a runner that is a unit of its own or the server's affair."""

    def __init__(self, directory: Path, releases: Releases, *, runner_unit: bool) -> None:
        self.releases = releases
        self.state_dir = directory / "state"
        self.runner: subprocess.Popen[bytes] | None = None
        self._log = directory / "unit.log"
        if runner_unit:
            self._start_runner()
        flags = ("--no-start-runner",) if runner_unit else ()
        self.server = Server(self.state_dir, *flags, env=releases.environment, cwd=directory)

    def _start_runner(self) -> None:
        command = [self.releases.program("rexec-runner"), "--state-dir", str(self.state_dir), "--no-cgroup", "--dev"]
        with self._log.open("ab") as log:
            self.runner = subprocess.Popen(command, env=self.releases.environment, stdin=subprocess.DEVNULL, stderr=log)
        eventually(self._runner_info, within=WAIT)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def versions(self) -> tuple[str, str]:
        """The server's and the runner's."""
        return self.server.stub.GetServerInfo(api.GetServerInfoRequest()).version, self.runner_info()["version"]

    def runner_info(self) -> Message:
        return eventually(self._runner_info, within=WAIT)

    def reload_runner(self) -> None:
        assert self.runner is not None
        self.runner.send_signal(signal.SIGHUP)

    def restart_server(self) -> None:
        """In good order, as a service manager does it."""
        assert self.server.terminate() == 0
        self.server.start()

    def close(self) -> None:
        self.server.close()
        if self.runner:
            self.runner.wait(timeout=WAIT)

    def _runner_info(self) -> Message | None:
        with suppress(OSError):
            client = Client.of(self.state_dir)
            try:
                return client.ask("info")
            finally:
                client.disconnect()
        return None


@pytest.fixture
def start_machine(tmp_path: Path, releases: Releases) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def start(*, runner_unit: bool) -> Machine:
        machines.append(Machine(tmp_path, releases, runner_unit=runner_unit))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


class Work:
    """What runs while versions change: a command that waits, one that talks without a pause, one that is fed."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server = server
        self._gate = directory / "gate"
        long = 'until [ -e "$0" ]; do sleep 0.1; done; echo done; exit 3'
        self._long = calls.start(server, "sh", "-c", long, str(self._gate))
        self._talker = calls.start(server, "sh", "-c", TALKER, str(self._gate))
        self._fed = calls.start(server, "cat", stdin_mode=api.STDIN_MODE_OPEN)
        self.shims = {server.shim_pid(run.exec_id) for run in (self._long, self._talker, self._fed)}
        self._said = b""

    def feed(self, line: bytes) -> None:
        request = api.WriteStdinRequest(exec_id=self._fed.exec_id, offset=len(self._said), data=line)
        self._server.stub.WriteStdin(request, timeout=WAIT, wait_for_ready=True)
        self._said += line

    def finish(self) -> None:
        """Lets all come to their ends, and checks every status and every byte."""
        self._gate.touch()
        request = api.WriteStdinRequest(exec_id=self._fed.exec_id, offset=len(self._said), eof=True)
        self._server.stub.WriteStdin(request, timeout=WAIT, wait_for_ready=True)
        self._check(self._long, 3, b"done\n")
        self._check(self._fed, 0, self._said)
        output = self._check(self._talker, 4, None)
        *numbers, last = output.splitlines()
        assert numbers == [b"%d" % i for i in range(1, len(numbers) + 1)]
        assert last == b"last %d" % len(numbers)

    def _check(self, run: pb.Execution, code: int, output: bytes | None) -> bytes:
        end = calls.ended(self._server, run.exec_id, within=WAIT)
        assert (end.WhichOneof("exit_status"), end.exit_code, end.reason) == ("exit_code", code, pb.REASON_EXITED)
        assert end.output_complete
        got = calls.output(self._server, run.exec_id)
        assert output is None or got == output
        return got


def test_runner_and_server_upgraded_as_units(
    start_machine: Callable[..., Machine], releases: Releases, tmp_path: Path
) -> None:
    """Install, SIGHUP the runner, restart the server: the new version, old shims, every byte; and back again."""
    machine = start_machine(runner_unit=True)
    assert machine.versions == (OLD, OLD)
    work = Work(machine.server, tmp_path)
    work.feed(b"before\n")
    for version in (NEW, OLD):
        releases.use(version)
        machine.reload_runner()
        eventually(lambda version=version: machine.runner_info()["version"] == version, within=WAIT)
        work.feed(b"between\n")  # through the server of the other version
        assert calls.run(machine.server, "sh", "-c", "exit 6").execution.exit_code == 6
        machine.restart_server()
        assert machine.versions == (version, version)
        work.feed(b"after\n")
        assert calls.run(machine.server, "sh", "-c", "exit 7").execution.exit_code == 7
    assert machine.runner is not None
    assert machine.runner_info()["pid"] == machine.runner.pid
    assert {psutil.Process(shim).ppid() for shim in work.shims} == {machine.runner.pid}
    work.finish()


def test_a_restarted_server_brings_its_own_runner_along(
    start_machine: Callable[..., Machine], releases: Releases, tmp_path: Path
) -> None:
    """In the one-user mode nobody else would: the server that was restarted makes its runner what it is itself."""
    machine = start_machine(runner_unit=False)
    pid = machine.server.runner_pid
    work = Work(machine.server, tmp_path)
    work.feed(b"before\n")
    for version in (NEW, OLD):
        releases.use(version)
        machine.restart_server()
        assert machine.versions == (version, version)
        work.feed(b"after\n")
    assert machine.server.runner_pid == machine.runner_info()["pid"] == pid
    work.finish()


def test_no_request_is_lost_or_done_twice_meanwhile(
    start_machine: Callable[..., Machine], releases: Releases, tmp_path: Path
) -> None:
    """Callers go on starting commands while versions change under them: each runs once, and none is refused."""
    machine = start_machine(runner_unit=True)
    traces = tmp_path / "traces"
    traces.mkdir()
    codes: dict[str, int] = {}

    def call(caller: int) -> None:
        for number in range(25):
            trace = traces / f"{caller}-{number}"
            end = calls.run(machine.server, "sh", "-c", 'echo x >> "$0"; exit 9', str(trace)).execution
            codes[trace.name] = end.exit_code

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for version in (NEW, OLD, NEW, OLD):
        releases.use(version)
        machine.reload_runner()
        eventually(lambda version=version: machine.runner_info()["version"] == version, within=WAIT)
    for caller in callers:
        caller.join()
    assert list(codes.values()) == [9] * 100
    assert {trace.name: trace.read_text() for trace in traces.iterdir()} == dict.fromkeys(codes, "x\n")


@pytest.mark.parametrize(
    ("version", "why"), [(BROKEN, "a_module_that_is_not_there"), (STRANGE, f"{STRANGE} cannot go on from this one")]
)
def test_a_version_that_cannot_take_over_is_not_tried(
    start_machine: Callable[..., Machine], releases: Releases, tmp_path: Path, version: str, why: str
) -> None:
    """The runner looks first: it stays what it is, says why, and goes on working."""
    machine = start_machine(runner_unit=True)
    work = Work(machine.server, tmp_path)
    releases.use(version)
    machine.reload_runner()
    eventually(lambda: why in machine.log, within=WAIT)
    assert machine.runner_info()["version"] == OLD
    assert calls.run(machine.server, "sh", "-c", "exit 6").execution.exit_code == 6
    releases.use(NEW)
    machine.reload_runner()
    eventually(lambda: machine.runner_info()["version"] == NEW, within=WAIT)
    work.finish()


def test_a_server_says_that_its_runner_is_of_another_version(
    start_machine: Callable[..., Machine], releases: Releases, tmp_path: Path
) -> None:
    """A runner that is a unit of its own is its operator's to upgrade; until then they work together."""
    machine = start_machine(runner_unit=True)
    work = Work(machine.server, tmp_path)
    releases.use(NEW)
    machine.restart_server()
    assert machine.versions == (NEW, OLD)
    assert f"rexec-runner is {OLD} and this server {NEW}" in machine.server.log
    assert calls.run(machine.server, "sh", "-c", "exit 6").execution.exit_code == 6
    work.feed(b"on\n")
    work.finish()


def test_programs_tell_their_version(releases: Releases) -> None:
    """What is installed can be asked without starting anything."""
    for name in ("rexec-server", "rexec-runner"):
        command = [releases.program(name), "--version"]
        done = subprocess.run(command, env=releases.environment, capture_output=True, text=True, timeout=WAIT)
        assert (done.returncode, done.stderr) == (0, "")
        assert OLD in done.stdout


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
