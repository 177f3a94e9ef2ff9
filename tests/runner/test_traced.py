"""Commands that are traced: a stop for a tracer is not an end, and an end is not hidden by one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from rexec_server.core.launch import Leftovers
from rexec_server.core.spool import Reason
from tests.runner.harness import Run, Runner, runs
from tests.runner.tracing import FOREVER, name, program, state
from tests.runner.users import CONFINED, need_root
from tests.waiting import eventually

ENDINGS: dict[str, tuple[Callable[[Run], object], Reason]] = {
    "timeout": (lambda _: None, Reason.TIMED_OUT),
    "signal": (lambda run: run.signal(signal.SIGKILL, group=True), Reason.CANCELLED),
}


def traced(runner: Runner, script: str, **fields: Any) -> Run:
    """Starts a program of `tests.runner.tracing`."""
    return runner.run(sys.executable, "-c", program(script), **fields)


def settled(run: Run, how: str) -> None:
    """Waits until the command is in the state that its name promises."""
    looks: dict[str, Callable[[], bool]] = {
        "exec": lambda: name(run.pid) == "sleep",
        "stop": lambda: state(run.pid) in "tT",
        "stopped thread": lambda: state(run.pid) in "tT",
        "first thread ended": lambda: state(run.pid) == "Z",
    }
    eventually(looks.get(how, lambda: run.output() == b"up\n"))
    if b"refused" in run.output():
        pytest.skip("this kernel lets nobody trace")


@pytest.mark.parametrize("how", FOREVER)
def test_s1_a_traced_command_is_cancelled_like_any_other(any_runner: Runner, how: str) -> None:
    """S1: Cancel ends what has itself stopped for a tracer, and the record says who did it."""
    run = traced(any_runner, FOREVER[how])
    settled(run, how)
    assert run.end(grace=0.2) == {"number": 1}
    record = run.wait()
    assert (record.reason, record.exit_code) == (Reason.CANCELLED, None)
    assert record.signal in (signal.SIGTERM, signal.SIGKILL)
    eventually(lambda: any_runner.zombies() == [])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("how", ["exec", "stop", "stopped thread"])
def test_s1_timeouts_and_signals_reach_it(runner: Runner, how: str, ending: str) -> None:
    """S1: a timeout and a signal end it too."""
    end, reason = ENDINGS[ending]
    limits = {"timeout": 0.7, "kill_grace": 0.2} if ending == "timeout" else {}
    run = traced(runner, FOREVER[how], **limits)
    if ending != "timeout":
        settled(run, how)
    end(run)
    record = run.wait()
    assert (record.reason, record.exit_code) == (reason, None)
    assert record.signal in (signal.SIGTERM, signal.SIGKILL)


def test_s1_as_another_user(start_runner: Callable[..., Runner]) -> None:
    """S1: the same where the command is another user's than its supervisor."""
    need_root()
    runner = start_runner("--no-cgroup", dev=False)
    for how in ("exec", "stop"):
        run = runner.run("python3", "-c", program(FOREVER[how]), confinement=CONFINED)
        settled(run, how)
        run.end(grace=0.2)
        assert run.wait().reason == Reason.CANCELLED


def test_s1_it_goes_on_as_if_it_had_never_asked(any_runner: Runner) -> None:
    """A command that has itself traced gets each signal, those of its own children too, and its end is true."""
    script = """
signal.signal(signal.SIGUSR1, lambda *_: say('usr1'))
traced()
if os.fork() == 0: os._exit(0)
os.wait()
say('up')
while True:
    signal.pause()
    traced()
"""
    run = traced(any_runner, script)
    eventually(lambda: run.output() == b"up\n")
    for times in (1, 2, 3):
        run.signal(signal.SIGUSR1)
        eventually(partial(lambda times: run.output() == b"up\n" + times * b"usr1\n", times))
    eventually(lambda: state(run.pid) == "S")
    run.signal(signal.SIGTERM)
    record = run.wait()
    assert (record.reason, record.signal) == (Reason.CANCELLED, signal.SIGTERM)


def test_s1_stopped_it_stays_stopped_until_it_is_continued(any_runner: Runner) -> None:
    """A stop of its own stays one: it is not continued for being traced, and SIGCONT continues it."""
    run = traced(any_runner, "traced(); say('up'); stop(); say('on'); sys.exit(6)")
    eventually(lambda: state(run.pid) == "T")
    assert run.output() == b"up\n"
    run.signal(signal.SIGCONT)
    record = run.wait()
    assert (run.output(), record.exit_code) == (b"up\non\n", 6)


@pytest.mark.parametrize("leftovers", Leftovers)
def test_s1_the_exit_is_true_though_a_tracer_hides_it(any_runner: Runner, leftovers: Leftovers) -> None:
    """The end of a traced process is told to its tracer alone; a child that never asks for it hides nothing."""
    script = """
own, (ready, go) = os.getpid(), os.pipe()
if os.fork() == 0:
    trace(own)
    os.write(go, b'x')
    for fd in (0, 1, 2): os.close(fd)
    time.sleep(300)
os.read(ready, 1)
sys.exit(3)
"""
    run = traced(any_runner, script, leftovers=leftovers)
    record = run.wait()
    assert (record.reason, record.exit_code, record.leftover_processes) == (Reason.EXITED, 3, 1)


def test_s1_a_stopped_orphan_hides_nobody(any_runner: Runner) -> None:
    """An orphan whose tracer is its supervisor keeps no others from being reaped, and is ended with the command."""
    script = """
orphan(lambda: (traced(), say(str(os.getpid())), stop(), time.sleep(300)))
for _ in range(20): orphan(lambda: None)
time.sleep(300)
"""
    run = traced(any_runner, script)
    stopped = int(eventually(lambda: run.output().endswith(b"\n") and run.output()))
    eventually(lambda: state(stopped) == "T")
    eventually(lambda: any_runner.zombies() == [])
    run.end(grace=5)
    record = run.wait()
    assert (record.reason, record.signal, record.leftover_processes) == (Reason.CANCELLED, signal.SIGTERM, 0)
    assert not runs(stopped)


def test_s1_a_thread_of_an_orphan_does_not_delay_the_end(any_runner: Runner) -> None:
    """An orphan of which a thread is traced by its supervisor is reaped, and counted, as any other."""
    script = """
orphan(lambda: (thread(lambda: (traced(), say('up'), time.sleep(300))), time.sleep(300)))
traced()
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = traced(any_runner, script)
    record = run.wait()
    assert (record.reason, record.signal, record.leftover_processes) == (Reason.SIGNALED, signal.SIGKILL, 1)
    eventually(lambda: any_runner.zombies() == [])


def test_s1_a_leftover_without_its_first_thread_is_ended(runner: Runner) -> None:
    """A process whose first thread has ended looks like a zombie, and is a leftover all the same."""
    run = traced(runner, "orphan(lambda: (thread(lambda: (say(str(os.getpid())), time.sleep(300))), end_thread()))")
    record = run.wait()
    assert (record.exit_code, record.leftover_processes) == (0, 1)
    assert not _exists(int(run.output()))


@pytest.mark.parametrize("how", ["exec", "stop", "stopped thread"])
def test_s1_the_runner_that_takes_over_is_not_fooled(any_runner: Runner, how: str) -> None:
    """After the shim's death the runner is the parent: it ends such a command, and sees to others meanwhile."""
    script = f"signal.signal(signal.SIGUSR1, lambda *_: None); say('ready'); signal.pause(); say('up')\n{FOREVER[how]}"
    run, other = traced(any_runner, script), any_runner.sh("sleep 300; exit 5")
    eventually(lambda: run.output() == b"ready\n")
    run.kill_shim()
    run.signal(signal.SIGUSR1)
    settled(run, how)
    other.kill_shim()
    other.end(grace=0.2)
    assert other.wait().written_by == "runner"
    run.end(grace=0.2)
    record = run.wait()
    assert (record.reason, record.exit_code, record.written_by) == (Reason.CANCELLED, None, "runner")
    eventually(lambda: any_runner.zombies() == [])


@pytest.mark.parametrize("how", ["first thread ended", "stop"])
def test_s1_a_runner_that_is_not_the_parent_is_not_fooled(any_runner: Runner, how: str) -> None:
    """With shim and runner dead, the next runner is a stranger to the command, and ends it all the same."""
    run = traced(any_runner, FOREVER[how])
    settled(run, how)
    any_runner.kill()
    run.kill_shim()
    any_runner.begin_process()
    assert run.end(grace=0.2) == {"number": 1}
    record = run.wait()
    assert (record.reason, record.exit_code, record.written_by) == (Reason.CANCELLED, None, "runner")


def _exists(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return state(pid) != "Z" or runs(pid)
    return False
