"""Counters of standard input outlive their keepers: shim, runner, and a runner of an earlier version."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rexec_server.core.launch import StdinMode
from rexec_server.core.stdin_writers import written_by
from tests.runner.harness import Run, Runner
from tests.runner.test_succession import WAIT, succeed
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def put(run: Run, writer: str, offset: int, data: bytes = b"", eof: bool = False) -> tuple[str | None, int, int]:
    """Returns the error, bytes_written and what was skipped."""
    answer = run.stdin(offset, data, eof, writer=key(writer))
    return answer["error"], answer["bytes_written"], answer.get("skipped", 0)


def cat(runner: Runner) -> Run:
    return runner.run("cat", stdin_mode=StdinMode.OPEN, initial_stdin=b"0 ")


def test_counters_outlive_shim_and_runner(any_runner: Runner) -> None:
    """A write is repeated, and continued, whichever process supervises now."""
    run = cat(any_runner)
    assert put(run, "a", 0, b"aa ") == (None, 3, 0)
    assert put(run, "b", 0, b"b ") == (None, 2, 0)
    any_runner.restart()
    assert put(run, "a", 0, b"aa a2 ") == (None, 6, 3)
    run.kill_shim()
    assert put(run, "b", 0, b"b b2 ") == (None, 5, 2)
    assert run.stdin(2, b"end", eof=True)["bytes_written"] == 5
    eventually(lambda: run.output() == b"0 aa b a2 b2 end")


def test_counters_outlive_a_runner_that_becomes_another_version(runner: Runner) -> None:
    """Executions that it supervised itself go on with the counts that they had."""
    run = cat(runner)
    put(run, "a", 0, b"aa ")
    run.kill_shim()
    assert put(run, "b", 0, b"b ") == (None, 2, 0)
    succeed(runner)
    assert put(run, "a", 0, b"aa a2 ") == (None, 6, 3)
    assert put(run, "b", 2, b"b2", eof=True) == (None, 4, 0)
    assert run.wait(WAIT).exit_code == 0
    assert run.output() == b"0 aa b a2 b2"


def test_the_repeat_of_an_end_after_its_shim(runner: Runner) -> None:
    """A writer that lost the answer to its last write is told by the successor that it was accepted."""
    run = runner.sh("cat; sleep 300 >/dev/null", stdin_mode=StdinMode.OPEN)
    assert put(run, "a", 0, b"abc", eof=True) == (None, 3, 0)
    run.kill_shim()
    assert put(run, "a", 0, b"abc", eof=True)[:2] == (None, 3)
    assert put(run, "b", 0, b"x")[0] == "closed"


def test_a_state_of_the_first_version(runner: Runner) -> None:
    """A shim of that version left three numbers: the next supervisor goes on with them, and knows writers too."""
    run = cat(runner)
    eventually(lambda: run.output() == b"0 ")
    os.kill(run.shim_pid, signal.SIGSTOP)
    os.truncate(run.directory / "stdin", 24)
    run.kill_shim()
    assert run.stdin(0, b"0 one ")["bytes_written"] == 6
    assert put(run, "a", 0, b"two") == (None, 3, 0)
    assert put(run, "a", 3, eof=True) == (None, 3, 0)
    assert run.wait().exit_code == 0
    assert run.output() == b"0 one two"


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "write", "repeat", "hole", "ask", "kill"]), st.integers(0, 3)),
    min_size=5,
    max_size=25,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_any_order_of_writers_repeats_and_kills(runner: Runner, steps: list[tuple[str, int]], seed: int) -> None:
    """Each writer's bytes arrive once and in its order, as far as it was told; a kill loses and doubles none."""
    dice = random.Random(seed)
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    sent = dict.fromkeys(range(4), b"")
    expected = b""
    killed = False
    for step, number in steps:
        name, before = f"w{number}", sent[number]
        if step == "write" or (step == "repeat" and before):
            back = dice.randint(0, len(before)) if step == "repeat" else 0
            new = bytes([65 + number]) * dice.choice([1, 7, 5000])
            answer = put(run, name, len(before) - back, before[len(before) - back :] + new)
            assert answer == (None, len(before) + len(new), back)
            sent[number] += new
            expected += new
        elif step == "hole":
            assert put(run, name, len(before) + 1, b"x") == ("beyond", len(before), 0)
        elif step == "ask":
            assert put(run, name, 0) == (None, len(before), 0)
        elif step == "kill" and not killed:
            run.kill_shim()
            killed = True
    assert put(run, "last", 0, eof=True)[0] is None
    run.wait()
    assert run.output() == expected


def test_a_write_under_way_when_its_shim_dies(runner: Runner) -> None:
    """A large write is cut by the kill: repeated, it is completed; or nothing more is taken. It is never doubled."""
    data = b"".join(b"%07d\n" % number for number in range(100_000))
    run = runner.sh("read go; cat", stdin_mode=StdinMode.OPEN)
    encoded = base64.b64encode(data).decode()
    with run.sending({"op": "stdin", "offset": 0, "data": encoded, "eof": False, "writer": key("a")}):
        state = run.directory / "stdin"
        eventually(lambda: written_by(state.read_bytes(), bytes.fromhex(key("a"))) > 0)
        run.kill_shim()
    error, written, _ = put(run, "a", 0, data)
    assert error in (None, "uncertain")
    if error is None:
        assert written == len(data)
        put(run, "a", len(data), eof=True)
        run.wait()
        assert run.output() == data[data.index(b"\n") + 1 :]
    else:
        run.end(grace=0)
        run.wait()
