"""A command that waits for its readers: what was used up is acknowledged, and nothing else."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise

import pytest
from grpc import StatusCode
from rexec.v1 import execution_pb2 as pb

from rexec_client import AsyncClient, CallError, Client, Gap, IncompleteOutputError, OutputLimitError
from tests.client.fakes import (
    FakeServer,
    chunk,
    counted,
    end,
    ended,
    execution,
    follow,
    gap,
    output,
    refuse,
    reply,
    snapshot,
    wire,
)
from tests.client.held_log import PIECE, HeldLog
from tests.waiting import eventually

MIB = 1 << 20
WAIT, DROP, TERMINATE = wire.OVERFLOW_WAIT, wire.OVERFLOW_DROP_OLDEST, wire.OVERFLOW_TERMINATE


@pytest.mark.parametrize(
    ("features", "options", "overflow"),
    [
        (["overflow_wait"], {}, WAIT),
        (["overflow_wait"], {"on_overflow": "wait"}, WAIT),
        (["overflow_wait"], {"on_overflow": "drop-oldest"}, DROP),
        (["overflow_wait"], {"on_overflow": "drop_oldest"}, DROP),
        (["overflow_wait"], {"on_overflow": "terminate"}, TERMINATE),
        ([], {}, None),
    ],
    ids=str,
)
def test_run_waits_where_the_server_can(
    fake: FakeServer, client: Client, features: list[str], options: dict, overflow: int | None
) -> None:
    """`run` loses nothing unless it is told to, or the server is older; `start` drops the oldest unless told."""
    fake.on("GetServerInfo", reply(wire.GetServerInfoResponse(features=features)))
    fake.on(
        "Exec", lambda request, _: wire.ExecResponse(execution=ended(exec_id=request.exec_id, exit_code=0), eof=True)
    )
    client.run(["x"], **options)
    client.run(["x"], **options)
    client.start(["x"], **options)
    first, second, started = fake.sent(wire.ExecRequest)
    if overflow is None:
        assert not first.HasField("output")
    else:
        assert first.output == second.output == wire.OutputLimit(overflow=overflow)
    assert started.HasField("output") == bool(options)
    assert len(fake.sent(wire.GetServerInfoRequest)) <= 1


def test_waiting_is_refused_where_the_server_cannot(fake: FakeServer, client: Client) -> None:
    """An older server would drop what was not to be lost; nothing is started."""
    for begin in (client.run, client.start):
        with pytest.raises(CallError, match="cannot make a command wait"):
            begin(["x"], on_overflow="wait")
    with pytest.raises(ValueError, match=r"'nonsense'.*'wait', 'drop-oldest' or 'terminate'"):
        client.start(["x"], on_overflow="nonsense")
    assert fake.sent(wire.ExecRequest) == []


def test_a_command_goes_on_as_its_output_is_used(fake: FakeServer, client: Client) -> None:
    """Acknowledgements are all that moves it; each has the holder's name, and the last one is the end."""
    held = HeldLog(fake, os.urandom(24 * MIB), limit=8 * MIB)
    assert client.run(["x"]).stdout == held.log
    assert len(set(held.holders)) == 1
    assert 1 <= len(held.holders[0]) <= 64
    assert all(before <= after for before, after in pairwise(held.acknowledged))
    assert held.acknowledged[-1] == len(held.log)
    # A call for each MiB of an 8 MiB log is enough, and one for each piece would be too many.
    assert len(held.acknowledged) < 24 * 2


def test_the_async_client_holds_too(fake: FakeServer) -> None:
    """With tasks instead of threads, and none of them left."""
    held = HeldLog(fake, os.urandom(24 * MIB), limit=4 * MIB)

    async def run() -> bytes:
        async with AsyncClient(fake.target) as client:
            return (await client.run(["x"])).stdout

    assert asyncio.run(run()) == held.log
    assert held.acknowledged[-1] == len(held.log)


def test_a_cut_is_resumed_by_the_same_holder(fake: FakeServer, client: Client) -> None:
    """A reader that comes back is known, and its offset is what it had used."""
    held = HeldLog(fake, os.urandom(16 * MIB), limit=4 * MIB, cuts=(MIB, 5 * MIB, 12 * MIB))
    assert client.run(["x"]).stdout == held.log
    requests = fake.sent(wire.FollowRequest)
    assert [request.offset for request in requests] == [0, MIB, 5 * MIB, 12 * MIB]
    assert len({request.holder for request in requests}) == 1


def test_what_was_received_and_not_used_is_not_acknowledged(fake: FakeServer, client: Client) -> None:
    """A piece counts when the next one is asked for: the application may still be writing it."""
    held = HeldLog(fake, os.urandom(4 * MIB), limit=2 * MIB)
    with client.start(["x"], on_overflow="wait").output() as stream:
        first, second = next(stream), next(stream)
        assert first.end == PIECE
        eventually(lambda: held.acknowledged)
        assert set(held.acknowledged) == {first.end}
        assert held.floor < second.end
        third = next(stream)
        eventually(lambda: held.floor == second.end)
    assert held.floor == second.end < third.end
    assert not held.released


def test_a_reader_that_leaves_may_release(fake: FakeServer, client: Client) -> None:
    """The command then goes on without readers; leaving alone keeps what was not read."""
    held = HeldLog(fake, os.urandom(MIB), limit=2 * PIECE)
    handle = client.start(["x"], on_overflow="wait")
    with handle.output() as stream:
        next(stream)
    assert not held.released
    stream = handle.output(since=PIECE)
    next(stream)
    stream.release()
    assert held.released
    assert len(set(held.holders)) == 2


def test_a_caller_names_its_own_holder(fake: FakeServer, client: Client) -> None:
    """Poll and acknowledge are enough to hold, without a stream."""
    HeldLog(fake, b"x" * 100, limit=50)
    fake.on("Poll", lambda request, _: wire.PollResponse(execution=execution(overflow_waits=True), next_offset=50))
    handle = client.attach("x")
    assert handle.poll(since=0, holder="mine").next_offset == 50
    assert fake.sent(wire.PollRequest)[-1].holder == "mine"
    assert handle.acknowledge(50, holder="mine") == 50
    assert client.acknowledge("x", 60, holder="mine", release=True) == 60
    sent = fake.sent(wire.AcknowledgeRequest)
    assert [(request.holder, request.offset, request.release) for request in sent] == [
        ("mine", 50, False),
        ("mine", 60, True),
    ]
    with handle.output(holder="named") as stream:
        next(stream)
    assert fake.sent(wire.FollowRequest)[-1].holder == "named"


def test_a_holder_of_what_waits_for_none_is_an_error(fake: FakeServer, client: Client) -> None:
    """An older server would take the name and hold nothing."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    handle = client.attach("x")
    with pytest.raises(ValueError, match="not started with on_overflow='wait'"):
        handle.poll(since=0, holder="mine")
    with pytest.raises(ValueError, match="not started with on_overflow='wait'"):
        handle.output(holder="mine")


def test_a_credential_that_may_only_read_looks(fake: FakeServer, client: Client) -> None:
    """Unless the caller named a holder: then it is told that it may not."""
    log, chunks = counted(10)
    state = execution(log, overflow_waits=True)
    no = refuse(StatusCode.PERMISSION_DENIED, "this token may only read")
    fake.on("Get", reply(wire.GetResponse(execution=state)))
    fake.on("Follow", no, follow(snapshot(state), output(*chunks), end(ended(log))))
    handle = client.attach("x")
    assert b"".join(piece.data for piece in handle.output()) == log
    first, second = fake.sent(wire.FollowRequest)
    assert (bool(first.holder), second.holder) == (True, "")
    assert fake.sent(wire.AcknowledgeRequest) == []
    fake.on("Follow", no)
    with pytest.raises(CallError, match="may only read"):
        next(handle.output(holder="mine"))


def test_looking_on_holds_nothing(fake: FakeServer, client: Client) -> None:
    """holder="" is for viewers, and an operator who looks at another's execution is one."""
    log, chunks = counted(10)
    fake.on("Get", reply(wire.GetResponse(execution=execution(log, overflow_waits=True))))
    fake.on("Follow", follow(output(*chunks), end(ended(log))))
    assert b"".join(piece.data for piece in client.attach("x").output(holder="")) == log
    assert b"".join(piece.data for piece in client.attach("x", owner="bob").output()) == log
    assert [request.holder for request in fake.sent(wire.FollowRequest)] == ["", ""]


@pytest.mark.parametrize("most", [100_000, MIB])
def test_run_collects_no_more_than_it_may(fake: FakeServer, client: Client, most: int) -> None:
    """Beyond max_output the command is cancelled, and the error has exactly what was collected."""
    held = HeldLog(fake, os.urandom(3 * MIB), limit=MIB)
    cancelled = execution(state=pb.STATE_RUNNING, reason=pb.REASON_CANCELLED)
    fake.on("Cancel", reply(wire.CancelResponse(execution=cancelled)))
    with pytest.raises(OutputLimitError, match=f"more than the {most} bytes.*it was cancelled") as caught:
        client.run(["x"], max_output=most, exec_id="x")
    assert caught.value.stdout == held.log[:most]
    assert (caught.value.limit, caught.value.exec_id) == (most, "x")
    assert isinstance(caught.value, IncompleteOutputError)
    assert caught.value.missing > 0
    assert fake.sent(wire.CancelRequest)[0].exec_id == "x"


def test_a_cancel_that_fails_is_told(fake: FakeServer, client: Client) -> None:
    """The command may go on: the error does not say that it was cancelled."""
    HeldLog(fake, os.urandom(MIB), limit=MIB)
    fake.on("Cancel", refuse(StatusCode.NOT_FOUND, "it is gone"))
    with pytest.raises(OutputLimitError, match="could not be cancelled: it is gone"):
        client.run(["x"], max_output=10)


def test_exactly_the_limit_is_not_beyond_it(fake: FakeServer, client: Client) -> None:
    """max_output is the most that may come."""
    held = HeldLog(fake, os.urandom(MIB), limit=MIB)
    assert client.run(["x"], max_output=MIB).stdout == held.log


def test_an_error_says_what_is_missing_too(fake: FakeServer, client: Client) -> None:
    """The output of a command that timed out is not taken for whole."""
    state = ended(b"0123456789", state=pb.STATE_FAILED, signal=15, reason=pb.REASON_TIMED_OUT)
    state.log_start_offset = 6
    fake.on("Exec", reply(wire.ExecResponse(execution=state, chunks=[chunk(6, b"6789")], next_offset=10, eof=True)))
    with pytest.raises(Exception, match="its timeout passed; 6 bytes of its output are no longer kept"):
        client.run(["x"])


def test_a_gap_names_what_keeps_more(fake: FakeServer, client: Client) -> None:
    """The words of the error are keywords of `run`."""
    log, chunks = counted(10)
    state = ended(log)
    fake.on("Exec", reply(wire.ExecResponse(execution=execution())))
    fake.on("Follow", follow(gap(0, chunks[4].offset), output(*chunks[4:]), end(state)))
    with pytest.raises(IncompleteOutputError, match=r"on_overflow='wait'.*max_output=.*gaps=True"):
        client.run(["x"])
    assert client.run(["x"], gaps=True).gaps == (Gap(0, chunks[4].offset),)


def test_get_asks_an_older_server_by_poll(fake: FakeServer, client: Client) -> None:
    """It is tried once per connection; waiting, which a Poll cannot do, is an error."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution(b"abc"))))
    assert client.get("x").log_end_offset == 3
    assert client.attach("x").get().log_end_offset == 3
    with pytest.raises(CallError, match="no Get here"):
        client.get("x", wait=1)
    fake.on("Get", reply(wire.GetResponse(execution=ended())))
    assert client.get("x", wait=1).exit_code == 0
    assert fake.sent(wire.GetRequest)[-1].wait.seconds == 1


def test_two_places_to_begin_at_are_an_error(fake: FakeServer, client: Client) -> None:
    """One of them would be ignored."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution(b"abc"))))
    handle = client.attach("x")
    for where in ({"since": 1, "tail_lines": 1}, {"tail_lines": 1, "tail_bytes": 1}):
        with pytest.raises(TypeError, match="give one of them"):
            handle.poll(**where)
        with pytest.raises(TypeError, match="give one of them"):
            handle.output(**where)
