"""Output survives its connections: nothing missing, nothing twice, and no end that was not told."""

from __future__ import annotations

import asyncio

import pytest
from grpc import StatusCode

from rexec_client import (
    AsyncClient,
    Client,
    IncompleteOutputError,
    NotFoundError,
    OutputGapError,
    ResourceExhaustedError,
    UnavailableError,
)
from rexec_client.output import Channel, Gap, OutputChunk
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

LOG, CHUNKS = counted(10)


def attach(fake: FakeServer, client: Client):
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    return client.attach("x")


def read(client: Client, fake: FakeServer, **options) -> bytes:
    return b"".join(piece.data for piece in attach(fake, client).output(**options))


@pytest.mark.parametrize(
    "cut", [None, StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED], ids=str
)
def test_a_cut_stream_goes_on_at_its_last_offset(fake: FakeServer, client: Client, cut: StatusCode | None) -> None:
    """However a stream breaks, a clean close included, every byte comes once and the end is the server's."""
    fake.on(
        "Follow",
        follow(snapshot(execution()), output(*CHUNKS[:3]), cut=cut),
        follow(snapshot(execution(), CHUNKS[3].offset), output(*CHUNKS[3:8]), cut=cut),
        follow(snapshot(execution(), CHUNKS[8].offset), output(*CHUNKS[8:]), end(ended(LOG))),
    )
    assert read(client, fake) == LOG
    assert [request.offset for request in fake.sent(wire.FollowRequest)] == [0, CHUNKS[3].offset, CHUNKS[8].offset]


def test_async_client_resumes_too(fake: FakeServer) -> None:
    """The generated client and the one it is generated from do the same."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    fake.on(
        "Follow",
        follow(snapshot(execution()), output(*CHUNKS[:5]), cut=StatusCode.UNAVAILABLE),
        follow(snapshot(execution()), output(*CHUNKS[5:]), end(ended(LOG))),
    )

    async def read_all() -> bytes:
        async with AsyncClient(fake.target) as client:
            handle = await client.attach("x")
            return b"".join([piece.data async for piece in handle.output()])

    assert asyncio.run(read_all()) == LOG


def test_output_that_comes_twice_is_given_once(fake: FakeServer, client: Client) -> None:
    """A server that begins a little earlier than asked doubles nothing."""
    overlapping = chunk(CHUNKS[2].offset + 3, LOG[CHUNKS[2].offset + 3 : CHUNKS[5].offset + 2])
    rest = chunk(CHUNKS[4].offset, LOG[CHUNKS[4].offset :])
    fake.on("Follow", follow(output(*CHUNKS[:4]), output(overlapping), output(rest), end(ended(LOG))))
    assert read(client, fake) == LOG


def test_a_hole_is_an_error(fake: FakeServer, client: Client) -> None:
    """Bytes left out without a gap are never skipped silently."""
    fake.on("Follow", follow(output(*CHUNKS[:2]), output(*CHUNKS[4:]), end(ended(LOG))))
    with pytest.raises(IncompleteOutputError) as caught:
        read(client, fake)
    assert caught.value.missing == CHUNKS[4].offset - CHUNKS[2].offset


def test_an_end_before_all_output_is_an_error(fake: FakeServer, client: Client) -> None:
    """The totals at the end are compared with what came."""
    fake.on("Follow", follow(output(*CHUNKS[:9]), end(ended(LOG))))
    with pytest.raises(IncompleteOutputError):
        read(client, fake)


def test_missing_bytes_of_a_filtered_channel_are_found(fake: FakeServer, client: Client) -> None:
    """With a channel filter offsets may jump, but the channel's total still has to be right."""
    fake.on("Follow", follow(output(*CHUNKS[:2]), output(*CHUNKS[3:]), end(ended(LOG))))
    with pytest.raises(IncompleteOutputError) as caught:
        read(client, fake, channels=[Channel.STDOUT])
    assert caught.value.missing == len(CHUNKS[2].data)


def test_a_gap_raises_and_iteration_goes_on_after_it(fake: FakeServer, client: Client) -> None:
    """A gap is never silent; whoever catches it can accept the loss."""
    fake.on("Follow", follow(gap(0, CHUNKS[7].offset), output(*CHUNKS[7:]), end(ended(LOG))))
    stream = attach(fake, client).output()
    with pytest.raises(OutputGapError) as caught:
        next(stream)
    assert caught.value.gap == Gap(0, CHUNKS[7].offset)
    assert b"".join(piece.data for piece in stream) == LOG[CHUNKS[7].offset :]


def test_gaps_can_be_asked_for_as_pieces(fake: FakeServer, client: Client) -> None:
    """With gaps=True a gap is a piece between chunks."""
    fake.on("Follow", follow(gap(0, CHUNKS[9].offset), output(CHUNKS[9]), end(ended(LOG))))
    pieces = list(attach(fake, client).output(gaps=True))
    assert pieces == [
        Gap(0, CHUNKS[9].offset),
        OutputChunk(Channel.STDOUT, CHUNKS[9].offset, CHUNKS[9].data),
    ]


def test_a_tail_resumes_by_offset(fake: FakeServer, client: Client) -> None:
    """A tail is asked for once: after a cut, the offset that it led to counts."""
    fake.on(
        "Follow",
        follow(snapshot(execution(LOG), CHUNKS[8].offset), output(CHUNKS[8]), cut=StatusCode.UNAVAILABLE),
        follow(output(CHUNKS[9]), end(ended(LOG))),
    )
    assert read(client, fake, tail_lines=2) == LOG[CHUNKS[8].offset :]
    first, second = fake.sent(wire.FollowRequest)
    assert (first.tail_lines, second.offset) == (2, CHUNKS[9].offset)


def test_an_answer_is_not_retried(fake: FakeServer, client: Client) -> None:
    """NOT_FOUND is what the server says, not what a connection does."""
    fake.on("Follow", refuse(StatusCode.NOT_FOUND))
    with pytest.raises(NotFoundError) as caught:
        read(client, fake)
    assert caught.value.exec_id == "x"
    assert len(fake.sent(wire.FollowRequest)) == 1


def test_a_crowded_server_is_waited_for(fake: FakeServer, client: Client) -> None:
    """Too many followers is an answer at first, but not for one who was there before the connection broke."""
    crowded = refuse(StatusCode.RESOURCE_EXHAUSTED)
    fake.on("Follow", follow(output(*CHUNKS[:5])), crowded, follow(output(*CHUNKS[5:]), end(ended(LOG))))
    assert read(client, fake) == LOG
    fake.on("Follow", crowded)
    with pytest.raises(ResourceExhaustedError):
        read(client, fake)


def test_a_server_that_stays_away_is_given_up(fake: FakeServer) -> None:
    """After reconnect_timeout without progress the last failure is raised."""
    fake.on("Follow", follow(cut=StatusCode.UNAVAILABLE))
    with Client(fake.target, reconnect_timeout=0.3) as client, pytest.raises(UnavailableError):
        read(client, fake)
    assert len(fake.sent(wire.FollowRequest)) > 1


def test_lines_are_whole_whatever_the_chunks(fake: FakeServer, client: Client) -> None:
    """Lines come whole and in order, however they were cut, and the last one without a newline too."""
    data = "zwölf\nBoxkämpfer\nohne Ende".encode()
    cut = [chunk(offset, data[offset : offset + 1]) for offset in range(len(data))]
    fake.on("Follow", follow(output(*cut), end(ended(data))))
    handle = attach(fake, client)
    assert list(handle.lines()) == ["zwölf\n", "Boxkämpfer\n", "ohne Ende"]
    assert list(handle.lines(encoding=None)) == data.splitlines(keepends=True)


def test_wait_returns_the_end_without_the_output(fake: FakeServer, client: Client) -> None:
    """Waiting begins at the log's end and follows the quieter channel."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution(LOG))))
    fake.on("Follow", follow(cut=StatusCode.UNAVAILABLE), follow(end(ended(LOG))))
    handle = client.attach("x")
    assert handle.wait().exit_code == 0
    assert handle.returncode == 0
    request = fake.sent(wire.FollowRequest)[0]
    assert (request.offset, list(request.channels)) == (len(LOG), [Channel.STDERR])
