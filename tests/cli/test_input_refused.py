"""`rexec run` where the server does not let a command have standard input as it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

from tests.client.fakes import FakeServer, end, ended, execution, follow, refuse, reply, wire

WITHIN = 60  # seconds for what takes milliseconds: a loaded machine must not fail a test
MODES = {"none": [wire.STDIN_MODE_NULL], "bytes": [wire.STDIN_MODE_NULL, wire.STDIN_MODE_BYTES]}
NO_INPUT = b"rexec: this command takes no standard input; use: rexec run -n -- \xe2\x80\xa6\n"
MIB = 1 << 20


def takes(fake: FakeServer, what: str) -> None:
    """Make `fake` a server whose rule has `stdin = what`."""
    details = [
        error_details_pb2.ErrorInfo(reason="INVALID_FIELD", domain="rexec", metadata={"stdin": what}),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="stdin_mode", description="no")]
        ),
    ]
    no = refuse(StatusCode.INVALID_ARGUMENT, "stdin_mode: no", *details)

    def answer(request, context):
        if request.stdin_mode not in MODES[what]:
            return no(request, context)
        return wire.ExecResponse(execution=execution(exec_id=request.exec_id))

    fake.on("Exec", answer)
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    fake.on("Follow", follow(end(ended())))


def run(fake: FakeServer, **stdin) -> tuple[int, bytes]:
    """Exit status and stderr."""
    line = [sys.executable, "-m", "rexec_client", "--target", fake.target, "run", "--", "foo"]
    done = subprocess.run(line, capture_output=True, timeout=WITHIN, **stdin)
    assert done.stdout == b""
    return done.returncode, done.stderr


def asked(fake: FakeServer) -> list[tuple[int, bytes]]:
    """The ways of input that were asked for, all of one execution."""
    requests = fake.sent(wire.ExecRequest)
    assert len({request.exec_id for request in requests}) == 1
    return [(request.stdin_mode, request.initial_stdin) for request in requests]


@pytest.mark.parametrize("what", ["none", "bytes"])
def test_a_terminal_is_left_alone(fake: FakeServer, what: str) -> None:
    """At a terminal the command starts without input: there is nothing that could get lost."""
    takes(fake, what)
    master, slave = os.openpty()
    line = ["setsid", "--ctty", sys.executable, "-m", "rexec_client", "--target", fake.target, "run", "--", "foo"]
    done = subprocess.run(line, stdin=slave, capture_output=True, timeout=WITHIN)
    os.close(master)
    os.close(slave)
    assert (done.returncode, done.stderr) == (0, b"")
    assert asked(fake) == [(wire.STDIN_MODE_OPEN, b""), (wire.STDIN_MODE_NULL, b"")]


def test_piped_input_is_never_dropped(fake: FakeServer, tmp_path: Path) -> None:
    """For a command without input a pipe or a file with bytes is refused, and the words say what to type instead."""
    takes(fake, "none")
    assert run(fake, input=b"important") == (255, NO_INPUT)
    (tmp_path / "input").write_bytes(b"important")
    with open(tmp_path / "input") as file:
        assert run(fake, stdin=file) == (255, NO_INPUT)
    modes = [request.stdin_mode for request in fake.sent(wire.ExecRequest)]
    assert modes == [wire.STDIN_MODE_OPEN, wire.STDIN_MODE_BYTES]


def test_a_pipe_that_stays_open_is_input(fake: FakeServer) -> None:
    """Nobody knows what is still to come: it is neither waited for nor dropped."""
    takes(fake, "none")
    reader, writer = os.pipe()
    assert run(fake, stdin=reader) == (255, NO_INPUT)
    os.close(reader)
    os.close(writer)


def test_an_empty_pipe_is_no_input(fake: FakeServer) -> None:
    """One that is at its end at once has nothing to lose; an empty file neither."""
    takes(fake, "none")
    reader, writer = os.pipe()
    os.close(writer)
    assert run(fake, stdin=reader) == (0, b"")
    os.close(reader)
    assert asked(fake) == [(wire.STDIN_MODE_OPEN, b""), (wire.STDIN_MODE_NULL, b"")]


@pytest.mark.parametrize("size", [0, 9, MIB], ids=["empty", "small", "most"])
def test_a_pipe_goes_ahead_where_only_bytes_are_taken(fake: FakeServer, size: int) -> None:
    """It is read to its end, and goes with the request."""
    takes(fake, "bytes")
    assert run(fake, input=b"x" * size) == (0, b"")
    assert asked(fake) == [(wire.STDIN_MODE_OPEN, b""), (wire.STDIN_MODE_BYTES, b"x" * size)]


def test_too_much_for_a_request_is_refused(fake: FakeServer, tmp_path: Path) -> None:
    """More than a request can carry is an error, not a part of it."""
    takes(fake, "bytes")
    (tmp_path / "input").write_bytes(b"x" * (MIB + 1))
    with open(tmp_path / "input") as file:
        status, said = run(fake, stdin=file)
    assert status == 255
    assert said.startswith(b"rexec: this command takes at most 1048576 bytes of standard input")
    assert len(fake.sent(wire.ExecRequest)) == 1


def test_another_refusal_is_told_as_it_is(fake: FakeServer) -> None:
    """What is not about standard input is not tried again."""
    fake.on("Exec", refuse(StatusCode.INVALID_ARGUMENT, "timeout: too long"))
    assert run(fake, input=b"x") == (255, b"rexec: timeout: too long\n")
    assert len(fake.sent(wire.ExecRequest)) == 1
