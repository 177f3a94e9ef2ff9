"""Standard input: none, given bytes, or fed while the command runs; never ended or doubled by an accident of ours."""

from __future__ import annotations

import os
import signal

from rexec_server.core.launch import StdinMode
from rexec_server.core.spool import STDIN_STATE, StdinState
from tests.runner.harness import Run, Runner
from tests.waiting import eventually

BIG = bytes(range(256)) * 4096  # one megabyte: many times a FIFO


def stdin_state(run: Run) -> StdinState:
    return StdinState.from_bytes((run.directory / STDIN_STATE).read_bytes())


def test_null_is_empty(runner: Runner) -> None:
    """NULL ends at once, and cannot be written to."""
    run = runner.sh("cat; sleep 300 > /dev/null")
    assert run.stdin(0, b"x") == {"number": 1, "error": "closed", "bytes_written": 0, "open": False}
    run.end(grace=0)
    assert (run.wait().stdout_bytes, "in" in run.files) == (0, False)


def test_bytes_are_all_there_at_once(runner: Runner) -> None:
    """BYTES: however many, none needs anybody to go on feeding them."""
    for data in (b"", b"x", BIG):
        run = runner.run("cat", stdin_mode=StdinMode.BYTES, initial_stdin=data)
        assert run.wait().exit_code == 0
        assert run.output() == data


def test_open_input_reaches_the_command_and_ends(runner: Runner) -> None:
    """OPEN: first the initial bytes, then what is written, then end-of-file, which the runner lets go of too."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN, initial_stdin=b"first ")
    assert run.stdin(6, b"second ")["bytes_written"] == 13
    eventually(lambda: run.output() == b"first second ")
    assert run.exit is None
    assert run.stdin(13, b"last", eof=True) == {"number": 1, "error": None, "bytes_written": 17, "open": False}
    assert run.wait().exit_code == 0
    assert run.output() == b"first second last"


def test_a_large_write_waits_for_its_reader(runner: Runner) -> None:
    """A megabyte is taken as the command reads, and is told to be in only when it is."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    assert run.stdin(0, BIG, eof=True)["bytes_written"] == len(BIG)
    assert run.wait().exit_code == 0
    assert run.output() == BIG


def test_a_repeated_write_is_not_doubled(runner: Runner) -> None:
    """Who lost an answer writes again at the same offset; a hole is refused."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    run.stdin(0, b"abc")
    assert run.stdin(0, b"abcdef")["bytes_written"] == 6
    assert run.stdin(9, b"x") == {"number": 1, "error": "beyond", "bytes_written": 6, "open": True}
    run.stdin(6, eof=True)
    run.wait()
    assert run.output() == b"abcdef"


def test_a_command_that_closed_its_input_is_told_to_writers(runner: Runner) -> None:
    """A write to nobody is refused, and kills nobody."""
    run = runner.sh("exec <&-; echo closed; sleep 300 >/dev/null", stdin_mode=StdinMode.OPEN)
    eventually(run.output)
    assert run.stdin(0, BIG)["error"] == "closed"
    assert run.exit is None


def test_a_waiting_write_is_answered_when_the_command_ends(runner: Runner) -> None:
    """It says how far it came."""
    run = runner.sh("sleep 0.3", stdin_mode=StdinMode.OPEN)
    answer = run.stdin(0, BIG)
    assert answer["error"] == "closed"
    assert 0 < answer["bytes_written"] < len(BIG)
    assert run.wait().exit_code == 0


def test_a_dead_shim_is_no_end_of_file(any_runner: Runner) -> None:
    """The runner holds the input open, and feeds it on."""
    run = any_runner.run("cat", stdin_mode=StdinMode.OPEN)
    run.stdin(0, b"before ")
    run.kill_shim()
    assert run.stdin(7, b"after")["bytes_written"] == 12
    eventually(lambda: run.output() == b"before after")
    assert run.exit is None
    run.stdin(12, eof=True)
    assert run.wait().exit_code == 0


def test_a_dead_runner_and_a_dead_shim_in_turn_are_no_end_of_file(runner: Runner) -> None:
    """Whoever of the two lives holds the input open; end-of-file comes when it was asked for, from whoever is there."""
    first = runner.run("cat", stdin_mode=StdinMode.OPEN)
    second = runner.run("cat", stdin_mode=StdinMode.OPEN)
    runner.kill()
    second.stdin(0, b"x", eof=True)
    assert second.wait().exit_code == 0
    runner.begin_process()
    first.stdin(0, b"a")
    first.kill_shim()
    first.stdin(1, b"b")
    eventually(lambda: first.output() == b"ab")
    first.stdin(2, eof=True)
    record = first.wait()
    assert record.lost or record.exit_code == 0


def test_end_of_file_outlives_the_shim_that_was_told(runner: Runner) -> None:
    """Once input is over it stays so, for the next supervisor too."""
    run = runner.sh("cat; echo over; sleep 300 >/dev/null", stdin_mode=StdinMode.OPEN)
    run.stdin(0, b"in ", eof=True)
    run.kill_shim()
    eventually(lambda: run.output() == b"in over\n")
    assert run.stdin(3, b"more")["error"] == "closed"
    assert not stdin_state(run).open


def test_a_write_that_may_have_happened_is_not_guessed(runner: Runner) -> None:
    """A shim that died inside a write leaves it uncertain; nothing more is taken, neither doubled nor skipped."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    run.stdin(0, b"abc")
    eventually(lambda: run.output() == b"abc")
    os.kill(run.shim_pid, signal.SIGSTOP)
    with (run.directory / STDIN_STATE).open("r+b") as file:
        file.write(StdinState(written=3, pending=3, open=1).to_bytes())
    run.kill_shim()
    answer = run.stdin(3, b"def")
    assert (answer["error"], answer["bytes_written"], answer["open"]) == ("uncertain", 3, True)
    assert run.output() == b"abc"
