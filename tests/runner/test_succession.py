"""SIGHUP makes a runner the installed version, in the same process: nothing that it had is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from rexec_server.core.launch import Leftovers
from rexec_server.core.spool import RUNNER_SOCKET
from rexec_server.runner.wire import encode
from tests.runner.channel import Channelled
from tests.runner.harness import Client, Runner
from tests.servers import runner_command
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

WAIT = 90.0


def succeed(runner: Runner) -> None:
    """SIGHUP, and waits until the process has become another program's image."""
    before = runner.log.count("becomes version")
    os.kill(runner.pid, signal.SIGHUP)
    eventually(lambda: runner.log.count("becomes version") > before, within=WAIT)
    assert runner.ask("info")["pid"] == runner.pid


def test_a_leftover_that_has_let_go_of_one_channel_hinders_nothing(runner: Runner) -> None:
    """The runner reads what a kept leftover still writes; the channel that is closed is not handed over any more."""
    run = runner.sh("sleep 300 >/dev/null & exit 3", leftovers=Leftovers.KEEP)
    assert run.wait().exit_code == 3
    run.kill_shim()
    eventually(lambda: f"{run.directory}/out" not in _descriptors(runner.pid))
    assert f"{run.directory}/err" in _descriptors(runner.pid)
    with closing(Channelled(runner.state_dir / RUNNER_SOCKET)) as other:
        assert other.ask({"op": "info"})["pid"] == runner.pid
        succeed(runner)
        assert other.ask({"op": "info"})["pid"] == runner.pid
    assert "stays as it is" not in runner.log


def test_a_connection_and_its_requests_go_on(runner: Runner) -> None:
    """A server that is connected sees nothing of it: no request of its is lost, and none done twice."""
    runs_started = []
    for round_ in range(5):
        os.kill(runner.pid, signal.SIGHUP)
        runs_started += [runner.sh(f"echo {round_}; exit {round_ + 1}") for _ in range(5)]
    succeed(runner)
    for number, run in enumerate(runs_started):
        assert run.answer.keys() == {"number", "instance", "pid"}
        assert (run.wait(WAIT).exit_code, run.output()) == (number // 5 + 1, b"%d\n" % (number // 5))


def test_requests_that_wait_are_done_by_the_next(runner: Runner) -> None:
    """What was sent while it changes waits in the socket, half a message too."""
    started = [runner.send("sh", "-c", f"exit {i}") for i in range(20)]
    os.kill(runner.pid, signal.SIGHUP)
    eventually(lambda: _looks_for_a_successor(runner.pid) or "becomes version" in runner.log, within=WAIT)
    started += [runner.send("sh", "-c", f"exit {i}") for i in range(20, 40)]
    assert [run.wait(WAIT).exit_code for run in started] == list(range(40))
    assert "becomes version" in runner.log


def test_shims_stay_its_children(runner: Runner, tmp_path: Path) -> None:
    """A shim from before that dies afterwards is taken over as ever: the status is seen, not looked up."""
    gate = tmp_path / "gate"
    talking = runner.run("sh", "-c", 'i=0; until [ -e "$0" ]; do i=$((i+1)); echo $i; sleep 0.01; done', str(gate))
    idle = runner.run("sleep", "300")
    succeed(runner)
    assert psutil.Process(talking.shim_pid).ppid() == runner.pid
    talking.kill_shim()
    idle.kill_shim()
    eventually(lambda: psutil.Process(idle.pid).ppid() == runner.pid, within=WAIT)
    os.kill(idle.pid, signal.SIGUSR1)
    record = idle.wait(WAIT)
    assert (record.signal, record.written_by) == (signal.SIGUSR1, "runner")
    gate.touch()
    record = talking.wait(WAIT)
    assert (record.exit_code, record.written_by, record.output_complete) == (0, "runner", True)
    assert record.usage is not None  # only a parent is told
    numbers = talking.output().split()
    assert numbers == [b"%d" % i for i in range(1, len(numbers) + 1)]
    assert runner.zombies() == []


def test_what_it_supervised_itself_goes_on(runner: Runner) -> None:
    """Commands whose shims were dead before: output, input and end are complete, also what came while it changed."""
    script = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)\nsys.exit(7)"
    reading = runner.python(script, stdin_mode=3)
    ending = runner.sh("read go; seq 1 5000; exit 9", stdin_mode=3)
    for run in (reading, ending):
        run.kill_shim()
        eventually(lambda run=run: psutil.Process(run.pid).ppid() == runner.pid, within=WAIT)
    assert reading.stdin(0, b"one\n")["bytes_written"] == 4
    assert ending.stdin(0, b"go\n")["bytes_written"] == 3
    succeed(runner)
    assert reading.stdin(4, b"two\n", eof=True)["bytes_written"] == 8
    for run, code, output in ((reading, 7, b"one\ntwo\n"), (ending, 9, b"".join(b"%d\n" % i for i in range(1, 5001)))):
        record = run.wait(WAIT)
        assert (record.exit_code, record.output_complete) == (code, True)
        assert run.output() == output


def test_a_stranger_whose_leader_it_watched(runner: Runner) -> None:
    """After a restart its shims are not its children; what it holds to learn their end, its successor holds."""
    run = runner.sh("read go; exit 5", stdin_mode=3)
    runner.restart()
    eventually(lambda: _descriptors(runner.pid).count("pidfd") == 2, within=WAIT)  # the shim's, and the leader's
    succeed(runner)
    assert run.stdin(0, b"go\n", eof=True)["error"] is None
    assert run.wait(WAIT).exit_code == 5


def test_ended_meanwhile(runner: Runner) -> None:
    """Whoever dies while nobody listens is noticed by the successor, and nothing is kept open for ever."""
    succeed(runner)
    before = runner.fds()
    for _ in range(3):
        started = [runner.sh("exit 3") for _ in range(5)]
        victims = [runner.run("sleep", "300") for _ in range(5)]
        os.kill(runner.pid, signal.SIGHUP)
        for run in victims:
            run.kill_shim()
            os.kill(run.pid, signal.SIGUSR2)
        assert {run.wait(WAIT).exit_code for run in started} == {3}
        assert {run.wait(WAIT).signal for run in victims} == {signal.SIGUSR2}
    succeed(runner)
    eventually(lambda: runner.fds() <= before, within=WAIT)
    eventually(lambda: not psutil.Process(runner.pid).children(), within=WAIT)


def test_the_lock_is_held_all_the_time(runner: Runner) -> None:
    """At no moment can another runner begin beside it."""
    succeed(runner)
    second = subprocess.run(runner_command(runner.state_dir), capture_output=True, text=True, timeout=WAIT)
    assert second.returncode == os.EX_CONFIG
    assert f"another runner (pid {runner.pid})" in second.stderr


def test_a_launch_of_a_later_version_is_not_started(runner: Runner) -> None:
    """What this runner does not know it cannot promise; the server is told so, and the connection goes on."""
    request = runner.request("true")
    request["launch"]["seccomp"] = "strict"
    answer = runner.ask(**request)
    assert answer["start_error"][0] == "ENOTSUP"
    assert "seccomp" in answer["start_error"][1]
    assert runner.run("true").wait(WAIT).exit_code == 0


def test_commands_get_what_they_would_have_had(runner: Runner) -> None:
    """What a runner changes for itself is not what its successor takes for given."""
    ask = "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; id -G; umask; grep Sig[BIC] /proc/self/status"
    before = runner.sh(ask)
    assert before.wait(WAIT).exit_code == 0
    succeed(runner)
    succeed(runner)
    after = runner.sh(ask)
    assert after.wait(WAIT).exit_code == 0
    assert after.output() == before.output()


def test_a_message_that_is_half_there_is_waited_for(runner: Runner) -> None:
    """It is read to its end first: nobody could go on with half of it."""
    message = encode({"number": 7, **runner.request("sh", "-c", "exit 6", env={"LONG": "x" * 100_000})})
    with closing(Channelled(runner.state_dir / RUNNER_SOCKET)) as other:
        assert other.ask({"op": "info"})["pid"] == runner.pid
        other.send_bytes(message[:50_000])
        assert runner.run("true").wait(WAIT).exit_code == 0  # by now it has read that
        os.kill(runner.pid, signal.SIGHUP)
        other.send_bytes(message[50_000:])
        answer = other.receive()
        assert (answer["number"], "pid" in answer) == (7, True)
    eventually(lambda: "becomes version" in runner.log, within=WAIT)


def test_half_a_message_does_not_hold_it_up_for_ever(runner: Runner) -> None:
    """Whoever sends half a message and stops: this version stays, says so, and serves the others again."""
    with closing(Channelled(runner.state_dir / RUNNER_SOCKET)) as other:
        assert other.ask({"op": "info"})["pid"] == runner.pid
        other.send_bytes(b"\0\0")
        assert runner.run("true").wait(WAIT).exit_code == 0  # by now it has read that
        os.kill(runner.pid, signal.SIGHUP)
        assert runner.run("true").wait(WAIT).exit_code == 0
        eventually(lambda: "stays as it is: a request took longer" in runner.log, within=WAIT)
    succeed(runner)


@pytest.mark.parametrize("changes", [False, True])
def test_leftovers_of_a_removed_execution_end_in_peace(runner: Runner, tmp_path: Path, changes: bool) -> None:
    """Deleted, with a process of it that goes on: it is never blocked, and when it ends nothing is kept of it."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    before = runner.fds()
    shimless = runner.sh(f"(read go; seq 1 100000) < {gate} & exit 3", leftovers=Leftovers.KEEP)
    shimless.kill_shim()
    with gate.open("w") as opened:
        assert shimless.wait(WAIT).exit_code == 3
        run = runner.sh(f"(read go; seq 1 100000) < {gate} & exit 4", leftovers=Leftovers.KEEP)
        assert run.wait(WAIT).exit_code == 4
        for one in (run, shimless):
            runner.ask("remove", id=one.name)
            assert not one.directory.exists()
        if changes:
            succeed(runner)
        opened.write("go\ngo\n")
    eventually(lambda: not psutil.Process(runner.pid).children(recursive=True), within=WAIT)
    eventually(lambda: runner.fds() <= before, within=WAIT)


def test_a_spool_of_a_newer_version_is_not_taken_up(runner: Runner) -> None:
    """The way back over a change of the layout is refused before anything is given up."""
    about = runner.state_dir / "spool" / "about"
    before = about.read_bytes()
    about.write_text('{"version": 99}')
    os.kill(runner.pid, signal.SIGHUP)
    eventually(lambda: "of a newer rexec" in runner.log, within=WAIT)
    assert runner.run("true").wait(WAIT).exit_code == 0
    about.write_bytes(before)
    succeed(runner)


def test_in_a_terminal_sighup_ends_it(tmp_path: Path) -> None:
    """There it says that the terminal was closed, and to commands it means what it always does."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(runner_command(tmp_path / "state"), stdin=theirs, cwd="/")
    try:
        client = eventually(lambda: _client(tmp_path / "state"), within=WAIT)
        mask = client.sh("grep SigBlk /proc/self/status")
        assert mask.wait(WAIT).exit_code == 0
        assert int(mask.output().split()[1], 16) == 0
        client.disconnect()
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=WAIT) == -signal.SIGHUP
    finally:
        process.kill()
        process.wait(timeout=WAIT)
        os.close(ours)
        os.close(theirs)


def _looks_for_a_successor(pid: int) -> bool:
    """Whether it is just asking the installed version, and takes no request."""
    with suppress(psutil.NoSuchProcess):
        return any("--check" in child.cmdline() for child in psutil.Process(pid).children())
    return False


def _client(state_dir: Path) -> Client | None:
    with suppress(OSError):
        return Client.of(state_dir)
    return None


def _descriptors(pid: int) -> str:
    """What a process has open, in one text."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return " ".join(found)
