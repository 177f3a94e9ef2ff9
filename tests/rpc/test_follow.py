"""Follow: the log as it grows, exactly, for readers of any speed."""

from __future__ import annotations

import time

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, ended, follow, joined, poll, refused, request, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
MIB = 1024 * 1024


def everything(stream: object) -> bytes:
    return b"".join(joined(message.output.chunks) for message in stream)  # type: ignore[attr-defined]


def test_each_line_comes_when_it_is_written(server: Server) -> None:
    """A line is with the follower at once, not with the next heartbeat or the end."""
    start(server, "cat", exec_id="cat", stdin_mode=api.STDIN_MODE_OPEN)
    stream, offset = follow(server, "cat"), 0
    assert next(stream).HasField("snapshot")
    for number in range(20):
        line = b"line %d\n" % number
        before = time.monotonic()
        server.stub.WriteStdin(api.WriteStdinRequest(exec_id="cat", offset=offset, data=line))
        assert joined(next(stream).output.chunks) == line
        assert time.monotonic() - before < 10  # the next heartbeat is at fifteen
        offset += len(line)
    stream.cancel()


def test_a_follower_that_comes_while_it_starts_gets_all_at_once(server: Server) -> None:
    """Who follows before the command runs is told of its start and of its first line as they come."""
    run(server, "true")
    runner = psutil.Process(server.runner_pid)
    runner.suspend()
    call = server.stub.Exec.future(request("sh", "-c", "sleep 1.5; echo on; sleep 30", exec_id="early"), timeout=20)
    stream = eventually(lambda: _attached(server, "early"))
    assert next(stream).snapshot.state == pb.STATE_STARTING
    runner.resume()
    assert call.result().execution.state == pb.STATE_RUNNING
    assert next(stream).snapshot.state == pb.STATE_RUNNING
    before = time.monotonic()
    assert joined(next(stream).output.chunks) == b"on\n"
    assert time.monotonic() - before < 20
    stream.cancel()


def _attached(server: Server, exec_id: str) -> object:
    try:
        poll(server, exec_id)
    except grpc.RpcError:
        return None
    return follow(server, exec_id)


def test_who_comes_back_gets_what_came_meanwhile(server: Server) -> None:
    """What followers share of a log is not old for the next one, when for a while there was none."""
    start(server, "cat", exec_id="back", stdin_mode=api.STDIN_MODE_OPEN)
    for number, line in enumerate((b"one\n", b"two\n", b"six\n")):
        server.stub.WriteStdin(api.WriteStdinRequest(exec_id="back", offset=4 * number, data=line))
        shown(server, "back", line, within=60)
        stream = follow(server, "back", offset=4 * number)
        next(stream)
        assert joined(next(stream).output.chunks) == line
        stream.cancel()
        eventually(lambda: poll(server, "back").execution.followers == 0, within=60)


def test_each_offset_resumes_exactly(server: Server) -> None:
    """From every offset of the log exactly the rest follows, whichever channel it falls into."""
    run(server, "sh", "-c", "for i in 1 2 3 4 5 6; do echo out $i; echo err $i >&2; done", exec_id="r")
    whole = everything(follow(server, "r"))
    for offset in range(len(whole) + 1):
        messages = list(follow(server, "r", offset=offset))
        assert everything(messages) == whole[offset:]
        assert messages[-1].next_offset == len(whole)


def test_every_message_says_where_to_resume(server: Server) -> None:
    """The bytes that came before a message's next_offset are those before it in the log."""
    start(server, "sh", "-c", "for i in $(seq 200); do echo $i; echo $i >&2; done; sleep 0.3; seq 100000", exec_id="r")
    seen = 0
    for message in follow(server, "r"):
        seen += len(joined(message.output.chunks))
        assert message.next_offset == seen


def test_starts_from_the_tail(server: Server) -> None:
    """tail_lines and tail_bytes begin near the end, and what comes afterwards is all there."""
    start(server, "sh", "-c", "seq 100; read x; echo more", exec_id="t", stdin_mode=api.STDIN_MODE_OPEN)
    shown(server, "t", b"\n100\n")
    lines, size = follow(server, "t", tail_lines=2), follow(server, "t", tail_bytes=6)
    for stream in (lines, size):
        assert next(stream).HasField("snapshot")
        assert joined(next(stream).output.chunks)[-4:] == b"100\n"
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="t", data=b"\n"))
    assert everything(lines) == everything(size) == b"more\n"
    assert everything(follow(server, "t", tail_lines=2)) == b"100\nmore\n"
    assert everything(follow(server, "t", tail_bytes=6)) == b"\nmore\n"


def test_filtered_channels(server: Server) -> None:
    """Only the asked channel comes; offsets count the whole log."""
    run(server, "sh", "-c", "seq 1000; seq 1000 >&2; seq 5", exec_id="f")
    messages = list(follow(server, "f", channels=[pb.CHANNEL_STDERR]))
    assert everything(messages) == b"".join(b"%d\n" % i for i in range(1, 1001))
    assert messages[-1].next_offset == messages[-1].end.log_end_offset


def test_gaps_are_exact_for_a_slow_reader(server: Server) -> None:
    """What a slow follower misses under a small cap is told to the byte; what it gets is right; it adds up."""
    start(
        server, "sh", "-c", "read x; seq 3000000", exec_id="gaps", stdin_mode=api.STDIN_MODE_OPEN,
        output=api.OutputLimit(max_bytes=200_000),
    )  # fmt: skip
    stream = follow(server, "gaps")
    next(stream)
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="gaps", data=b"\n", eof=True))
    assert ended(server, "gaps").exit_code == 0  # the reader has not read: it slows nothing
    whole = b"".join(b"%d\n" % i for i in range(1, 3_000_001))
    position, missed, end = 0, 0, None
    for message in stream:
        if message.HasField("gap"):
            assert message.gap.start_offset == position < message.gap.end_offset
            missed += message.gap.end_offset - message.gap.start_offset
            position = message.gap.end_offset
        for chunk in message.output.chunks:
            assert chunk.offset == position
            assert chunk.data == whole[position : position + len(chunk.data)]
            position += len(chunk.data)
        assert message.next_offset == position
        end = message.end
    assert position == len(whole) == end.log_end_offset
    assert 0 < missed <= sum(total.bytes_dropped for total in end.totals)


@pytest.mark.timeout(240)  # half a gigabyte goes to two hundred windows on two cores
def test_t_ds_04_two_hundred_who_never_read(own_server: Server) -> None:
    """Followers that stop reading change nothing for the command, for others, for Cancel, nor for the memory."""
    start(
        own_server, "sh", "-c", "head -c 100000000 /dev/zero; echo; echo on >&2; sleep 300", exec_id="big",
        stderr_mode=api.STDERR_MODE_SEPARATE,
    )  # fmt: skip
    channels = [grpc.insecure_channel(own_server.target, options=[("grpc.enable_http_proxy", 0)]) for _ in range(4)]
    streams = []
    for number in range(200):
        follow_ = channels[number % 4].unary_stream(
            "/rexec.v1.ExecutionService/Follow",
            request_serializer=api.FollowRequest.SerializeToString,
            response_deserializer=api.FollowResponse.FromString,
        )
        streams.append(follow_(api.FollowRequest(exec_id="big")))
    eventually(lambda: poll(own_server, "big").execution.followers == 200)
    eventually(lambda: poll(own_server, "big").execution.log_end_offset >= 100_000_000, within=60)
    memory = psutil.Process(own_server.pid).memory_info().rss
    reader = follow(own_server, "big", offset=90_000_000)
    size = 0
    for message in reader:
        size += len(joined(message.output.chunks))
        if size >= 10_000_004:
            reader.cancel()
            break
    for _ in range(50):
        run(own_server, "head", "-c", str(MIB), "/dev/zero")
    assert psutil.Process(own_server.pid).memory_info().rss - memory < 64 * MIB
    assert memory < 400 * MIB
    before = time.monotonic()
    own_server.stub.Cancel(api.CancelRequest(exec_id="big"))
    assert ended(own_server, "big").reason == pb.REASON_CANCELLED
    assert time.monotonic() - before < 20
    for stream in streams:
        stream.cancel()
    for channel in channels:
        channel.close()
    eventually(lambda: poll(own_server, "big").execution.followers == 0)


def test_too_many_followers_are_told(start_server: START_SERVER) -> None:
    """Beyond the limit a Follow is refused at once, with when to come again; a place that is freed is free."""
    server = start_server("--max-followers", "2")
    start(server, "sleep", "60", exec_id="x")
    streams = [follow(server, "x") for _ in range(2)]
    for stream in streams:
        next(stream)
    answer = refused(lambda: next(follow(server, "x")), "RESOURCE_EXHAUSTED")
    assert {"QuotaFailure", "RetryInfo"} <= answer.details.keys()
    streams.pop().cancel()
    stream = eventually(lambda: _snapshot(server))
    for open_ in (*streams, stream):
        open_.cancel()


def _snapshot(server: Server) -> object:
    stream = follow(server, "x")
    try:
        next(stream)
    except grpc.RpcError:
        return None
    return stream


def test_an_expired_execution_ends_its_followers_honestly(server: Server) -> None:
    """Output that is forgotten while somebody still reads it is a gap, not silence."""
    run(server, "head", "-c", str(8 * MIB), "/dev/zero", exec_id="old", retention=1.5)
    stream = follow(server, "old")
    messages = [next(stream)]
    eventually(lambda: not server.stub.List(api.ListRequest()).executions)
    messages += list(stream)
    position = 0
    for message in messages:
        position += len(joined(message.output.chunks)) + message.gap.end_offset - message.gap.start_offset
    assert position == 8 * MIB
    assert messages[-1].HasField("end")
