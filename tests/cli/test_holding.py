"""`rexec run` and `follow` as the reader that a command waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from grpc import StatusCode
from rexec.v1 import execution_pb2 as pb

from tests.client.fakes import (
    FakeServer,
    counted,
    end,
    ended,
    execution,
    follow,
    output,
    refuse,
    reply,
    snapshot,
    wire,
)
from tests.client.held_log import HeldLog
from tests.waiting import eventually

WITHIN = 60
MIB = 1 << 20
# The output that `rexec` may hold itself, beyond a pipe: the piece that it is writing.
PIPE = 64 << 10

STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """End the command that a failed test would leave behind."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def start(fake: FakeServer, *arguments: str, **options) -> subprocess.Popen:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    STARTED.append(
        subprocess.Popen([sys.executable, "-m", "rexec_client", "--target", fake.target, *arguments], **streams)
    )
    return STARTED[-1]


def rexec(fake: FakeServer, *arguments: str) -> tuple[int, bytes, str]:
    process = start(fake, *arguments)
    out, err = process.communicate(timeout=WITHIN)
    return process.returncode, out, err.decode()


def test_run_holds_until_the_end(fake: FakeServer) -> None:
    """A command that waits for its reader goes on, over cuts, and nothing is said where nothing is missing."""
    held = HeldLog(fake, os.urandom(6 * MIB), limit=MIB)
    code, out, err = rexec(fake, "run", "--", "x")
    assert (code, out, err) == (0, held.log, "")
    assert fake.sent(wire.ExecRequest)[0].output.overflow == wire.OVERFLOW_WAIT
    assert len(set(held.holders)) == 1
    assert held.acknowledged[-1] == len(held.log)


@pytest.mark.parametrize(
    ("option", "overflow"),
    [("drop-oldest", wire.OVERFLOW_DROP_OLDEST), ("terminate", wire.OVERFLOW_TERMINATE), ("wait", wire.OVERFLOW_WAIT)],
)
def test_the_mode_is_chosen(fake: FakeServer, option: str, overflow: int) -> None:
    """For run and exec; exec by itself leaves it to the server."""
    HeldLog(fake, b"", limit=MIB)
    for command in ("run", "exec"):
        assert rexec(fake, command, "--on-overflow", option, "--max-output", "8M", "--", "x")[0] == 0
    rexec(fake, "exec", "--", "x")
    *chosen, plain = fake.sent(wire.ExecRequest)
    assert [request.output for request in chosen] == [wire.OutputLimit(max_bytes=8 * MIB, overflow=overflow)] * 2
    assert not plain.HasField("output")


def test_a_blocked_pipe_is_not_acknowledged(fake: FakeServer) -> None:
    """Bytes that are written out are used; those that wait in this process for a pipe without a reader are not."""
    held = HeldLog(fake, os.urandom(4 * MIB), limit=2 * MIB)
    process = start(fake, "run", "--", "x")
    taken = process.stdout.read(MIB)
    eventually(lambda: held.acknowledged)
    assert max(held.acknowledged) <= len(taken) + PIPE
    rest, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, taken + rest, err) == (0, held.log, b"")


def test_leaving_releases(fake: FakeServer) -> None:
    """After a second Ctrl-C the command goes on without a reader, as the words say."""
    held = HeldLog(fake, os.urandom(4 * MIB), limit=MIB)
    fake.on("Signal", reply(wire.SignalResponse(execution=execution())))
    process = start(fake, "run", "--id", "x", "--", "stubborn")
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    eventually(lambda: fake.sent(wire.SignalRequest))
    assert not held.released
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, held.released) == (130, True)
    assert b"detached; it goes on. Come back: rexec " in err


def test_leaving_that_cannot_release_does_not_say_so(fake: FakeServer) -> None:
    """If the server does not answer, the command waits: that is what is told."""
    HeldLog(fake, os.urandom(4 * MIB), limit=MIB)
    fake.on("Signal", reply(wire.SignalResponse(execution=execution())))
    fake.on("Acknowledge", refuse(StatusCode.FAILED_PRECONDITION, "no"))
    process = start(fake, "run", "--id", "x", "--", "stubborn")
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    eventually(lambda: fake.sent(wire.SignalRequest))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert b"detached; it goes on until its output is full, and then waits for a reader. Come back: rexec " in err


def test_a_closed_pipe_releases(fake: FakeServer) -> None:
    """`rexec run ... | head`: a command that ignores SIGPIPE does not wait for a reader that is gone."""
    held = HeldLog(fake, os.urandom(4 * MIB), limit=MIB)
    fake.on("Signal", reply(wire.SignalResponse(execution=execution())))
    process = start(fake, "run", "--", "x")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(WITHIN) == 128 + signal.SIGPIPE
    assert held.released


def test_follow_goes_on_where_the_last_reader_got_to(fake: FakeServer) -> None:
    """Of a command that waits, what was used up is past; --since, --tail and --no-hold are as they say."""
    log, chunks = counted(100)
    state = execution(log, overflow_waits=True, max_output_bytes=MIB, held_offset=chunks[40].offset)
    fake.on("Get", reply(wire.GetResponse(execution=state)))

    def rest(request, context):
        start = next(at for at, piece in enumerate(chunks) if piece.offset >= request.offset)
        yield from follow(snapshot(state, request.offset), output(*chunks[start:]), end(ended(log)))(request, context)

    fake.on("Follow", rest)
    fake.on("Acknowledge", reply(wire.AcknowledgeResponse()))
    assert rexec(fake, "follow", "x") == (0, log[chunks[40].offset :], "")
    assert rexec(fake, "follow", "x", "--since", str(chunks[10].offset)) == (0, log[chunks[10].offset :], "")
    assert rexec(fake, "follow", "x", "--no-hold") == (0, log, "")
    requests = fake.sent(wire.FollowRequest)
    assert [bool(request.holder) for request in requests] == [True, True, False]


def test_leaving_a_follow_keeps_what_was_not_read(fake: FakeServer) -> None:
    """The words say that the command waits for the next reader."""
    held = HeldLog(fake, os.urandom(4 * MIB), limit=MIB)
    process = start(fake, "follow", "x")
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert not held.released
    assert b"it waits when its output is full; go on with: rexec " in err


def test_follow_with_a_credential_that_may_only_read(fake: FakeServer) -> None:
    """It shows the output, and holds nothing."""
    log, chunks = counted(10)
    fake.on("Get", reply(wire.GetResponse(execution=execution(log, overflow_waits=True))))
    no = refuse(StatusCode.PERMISSION_DENIED, "this token may only read")
    fake.on("Follow", no, follow(output(*chunks), end(ended(log))))
    assert rexec(fake, "follow", "x") == (0, log, "")


def test_what_it_waits_for_is_shown(fake: FakeServer) -> None:
    """By list, poll and info: the reason, the mode, the limit and how far it is held."""
    state = execution(
        b"x" * 100,
        overflow_waits=True,
        max_output_bytes=64,
        held_offset=36,
        waiting=pb.WAITING_READER,
        waiting_message="64 of 64 bytes are not read",
    )
    fake.on("Get", reply(wire.GetResponse(execution=state)))
    fake.on("Poll", reply(wire.PollResponse(execution=state, next_offset=100)))
    fake.on("List", reply(wire.ListResponse(executions=[state])))
    why = "waits for its reader: 64 of 64 bytes are not read"
    assert "running, waits for its reader " in rexec(fake, "list")[1].decode()
    code, _, err = rexec(fake, "poll", "x")
    assert code == 0
    assert f"x running, {why}" in err
    assert "64 bytes kept, then it waits; held from offset 36" in err
    told = rexec(fake, "info", "x")[1].decode()
    assert "its reader: 64 of 64 bytes are not read" in told
    assert "64 bytes kept, then it waits; held from offset 36" in told
    assert '"held_offset": "36"' in rexec(fake, "info", "x", "--json")[1].decode()
