"""Poll: which output an answer has, and when it comes."""

from __future__ import annotations

import threading
import time
from functools import partial

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, duration, ended, joined, outcome, poll, refused, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
BOTH = "for i in $(seq 300); do echo out $i; echo err $i >&2; done"


@pytest.mark.parametrize("size", [1, 7, 1000, 65536, 0])
def test_pages_are_the_whole(server: Server, size: int) -> None:
    """Whatever the size of a page, the pages together are the output, at the offsets they say."""
    run(server, "seq", "60" if size == 1 else "3000", exec_id="pages")
    expected = b"".join(b"%d\n" % i for i in range(1, 61 if size == 1 else 3001))
    data, offset, eof = b"", 0, False
    while not eof:
        answer = poll(server, "pages", offset=offset, max_bytes=size)
        for chunk in answer.chunks:
            assert chunk.offset == len(data)
            assert chunk.HasField("read_time")
            data += chunk.data
        assert size == 0 or len(joined(answer.chunks)) <= size
        offset, eof = answer.next_offset, answer.eof
        assert offset == len(data)
    assert data == expected


def test_channels_share_one_offset_space(server: Server) -> None:
    """Chunks of both channels follow each other without a hole, and each channel is exact."""
    run(server, "sh", "-c", BOTH, exec_id="both")
    chunks = poll(server, "both", offset=0).chunks
    offset = 0
    for chunk in chunks:
        assert chunk.offset == offset
        offset += len(chunk.data)
    for channel, word in ((pb.CHANNEL_STDOUT, b"out"), (pb.CHANNEL_STDERR, b"err")):
        expected = b"".join(b"%b %d\n" % (word, i) for i in range(1, 301))
        assert joined(chunk for chunk in chunks if chunk.channel == channel) == expected
        filtered = poll(server, "both", offset=0, channels=[channel])
        assert joined(filtered.chunks) == expected
        assert {chunk.channel for chunk in filtered.chunks} == {channel}
        assert (filtered.next_offset, filtered.eof) == (offset, True)


def test_a_filter_pages_too(server: Server) -> None:
    """With a channel filter small pages still reach the end, and max_bytes counts only what is asked for."""
    run(server, "sh", "-c", BOTH, exec_id="both")
    data, answer = b"", api.PollResponse()
    while not answer.eof:
        answer = poll(
            server, "both", offset=answer.next_offset, max_bytes=100, channels=[pb.CHANNEL_STDERR, pb.CHANNEL_STDERR]
        )
        data += joined(answer.chunks)
    assert data == b"".join(b"err %d\n" % i for i in range(1, 301))


def test_merged_is_the_commands_own_order(server: Server) -> None:
    """With stderr merged there is one channel, in the order in which the command wrote."""
    run(server, "sh", "-c", BOTH, exec_id="merged", stderr_mode=api.STDERR_MODE_MERGED)
    answer = poll(server, "merged", offset=0)
    assert joined(answer.chunks) == b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(1, 301))
    assert [total.channel for total in answer.execution.totals] == [pb.CHANNEL_STDOUT]


def test_tail_bytes(server: Server) -> None:
    """The newest bytes, fewer if there are fewer, and of the asked channels only."""
    run(server, "sh", "-c", "printf 0123456789; sleep 0.05; printf abc >&2", exec_id="tail")
    for size, expected in ((0, b""), (2, b"bc"), (5, b"89abc"), (13, b"0123456789abc"), (100, b"0123456789abc")):
        assert joined(poll(server, "tail", tail_bytes=size).chunks) == expected
    assert joined(poll(server, "tail", tail_bytes=4, channels=[pb.CHANNEL_STDOUT]).chunks) == b"6789"
    assert joined(poll(server, "tail", tail_bytes=2**64 - 1).chunks) == b"0123456789abc"


def test_the_default_is_the_servers_number_of_lines(start_server: START_SERVER) -> None:
    """Without a start the newest lines come, three or as many as the server is set to."""
    three, five = start_server(name="three"), start_server("--tail-lines", "5", name="five")
    for server, expected in ((three, b"8\n9\n10\n"), (five, b"6\n7\n8\n9\n10\n")):
        run(server, "seq", "10", exec_id="lines")
        assert joined(poll(server, "lines").chunks) == expected


def test_long_poll_wakes_at_output(server: Server) -> None:
    """A waiting Poll answers when something is written, long before its time is over."""
    start(server, "cat", exec_id="cat", stdin_mode=api.STDIN_MODE_OPEN)
    call = server.stub.Poll.future(api.PollRequest(exec_id="cat", offset=0, wait=duration(30)), timeout=40)
    eventually(lambda: poll(server, "cat"))
    assert not call.done()
    before = time.monotonic()
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="cat", data=b"hi\n"))
    assert joined(call.result().chunks) == b"hi\n"
    assert time.monotonic() - before < 20


def test_long_poll_wakes_at_the_end(server: Server) -> None:
    """A waiting Poll answers when the command ends without a word."""
    start(server, "sleep", "0.3", exec_id="quiet")
    before = time.monotonic()
    answer = poll(server, "quiet", offset=0, wait=30)
    assert answer.eof
    assert answer.execution.state == pb.STATE_SUCCEEDED
    assert time.monotonic() - before < 20


def test_long_poll_ignores_the_other_channel(server: Server) -> None:
    """With a filter only the asked channel wakes."""
    start(server, "sh", "-c", "echo no; sleep 0.5; echo yes >&2; sleep 30", exec_id="two")
    answer = poll(server, "two", offset=0, wait=20, channels=[pb.CHANNEL_STDERR])
    assert joined(answer.chunks) == b"yes\n"


def test_long_poll_is_over_in_time(server: Server) -> None:
    """Nothing to tell: the answer comes after the time that was asked for, and has nothing."""
    start(server, "sleep", "30", exec_id="silent")
    before = time.monotonic()
    answer = poll(server, "silent", offset=0, wait=0.5)
    assert 0.4 < time.monotonic() - before < 20
    assert not answer.chunks
    assert not answer.eof


def test_skipped_bytes_are_exact(server: Server) -> None:
    """A start that is no longer kept moves to the oldest kept byte, and says how far."""
    run(server, "seq", "100000", exec_id="capped", output=api.OutputLimit(max_bytes=50_000))
    whole = b"".join(b"%d\n" % i for i in range(1, 100_001))
    answer = poll(server, "capped", offset=1000)
    first = answer.execution.log_start_offset
    assert 0 < first < len(whole)
    assert answer.skipped_bytes == first - 1000
    assert answer.chunks[0].offset == first
    assert joined(answer.chunks) == whole[first:]
    assert poll(server, "capped", offset=first).skipped_bytes == 0


def test_eof_is_when_all_was_given(server: Server) -> None:
    """eof is not before the end, nor before the last byte."""
    start(server, "sh", "-c", "printf abc; read x", exec_id="eof", stdin_mode=api.STDIN_MODE_OPEN)
    shown(server, "eof", b"abc")
    assert not poll(server, "eof", offset=3).eof
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="eof", eof=True))
    ended(server, "eof")
    assert not poll(server, "eof", offset=0, max_bytes=2).eof
    assert poll(server, "eof", offset=0, max_bytes=3).eof
    assert poll(server, "eof", offset=3).eof


def test_a_giving_up_caller_costs_nothing(server: Server) -> None:
    """Calls that are cancelled at any moment leave the server serving."""
    run(server, "echo", "hi", exec_id="kept")
    threads = [threading.Thread(target=_give_up, args=(server, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert joined(poll(server, "kept").chunks) == b"hi\n"
    assert server.stub.List(api.ListRequest(), timeout=5).executions
    assert run(server, "true").execution.exit_code == 0


def _give_up(server: Server, number: int) -> None:
    """Many lookups, each with less time than most of them need."""
    for round_ in range(60):
        call = server.stub.List if round_ % 2 else server.stub.Poll
        request = api.ListRequest() if round_ % 2 else api.PollRequest(exec_id=f"unknown-{number}-{round_}")
        code = outcome(partial(call, request, timeout=0.0005 * (1 + round_ % 10)))
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND)


def test_a_wait_longer_than_a_minute_is_refused(server: Server) -> None:
    """The most that is granted is said."""
    start(server, "true", exec_id="x")
    assert refused(lambda: poll(server, "x", wait=61), "INVALID_ARGUMENT").fields == ["wait"]


def test_by_group(server: Server) -> None:
    """Instead of an id: the caller's own newest in that group; when that is deleted, the one before it."""
    nothing = refused(lambda: poll(server, "", exclusive_group="g"), "NOT_FOUND")
    assert "exclusive_group 'g'" in nothing.message
    for exec_id in ("first", "second"):
        run(server, "echo", exec_id, exec_id=exec_id, exclusive_group="g")
        answer = poll(server, "", exclusive_group="g", offset=0)
        assert (answer.execution.exec_id, joined(answer.chunks)) == (exec_id, b"%b\n" % exec_id.encode())
    start(server, "true", exec_id="other", exclusive_group="h")
    start(server, "true", exec_id="theirs", exclusive_group="g", caller=f"{server.caller}-b")
    assert poll(server, "", exclusive_group="g").execution.exec_id == "second"
    server.stub.Delete(api.DeleteRequest(exec_id="second"))
    assert poll(server, "", exclusive_group="g").execution.exec_id == "first"


def test_another_callers_group_looks_like_none(server: Server) -> None:
    """As everywhere: who is no operator is told the same of what is another's and of what is not there."""
    other = f"{server.caller}-b"
    start(server, "true", exec_id="theirs", exclusive_group="g", caller=other)
    answers = [
        refused(partial(poll, server, "", exclusive_group="g", caller=owner), "NOT_FOUND").message
        for owner in (other, "nobody", "")
    ]
    assert len(set(answers)) == 1


def test_an_id_or_a_group(server: Server) -> None:
    """One of the two says which execution is meant."""
    assert refused(lambda: poll(server, "x", exclusive_group="g"), "INVALID_ARGUMENT").fields == ["exclusive_group"]
    assert refused(lambda: poll(server, ""), "INVALID_ARGUMENT").fields == ["exec_id"]


def test_by_group_after_a_restart(start_server: START_SERVER) -> None:
    """What the server had in memory is in the index too. An operator polls another caller's."""
    server = start_server(name="restarted")
    start(server, "sleep", "60", exec_id="held", exclusive_group="g")
    start(server, "true", exec_id="theirs", exclusive_group="g", caller="bob")
    server.restart()
    assert poll(server, "", exclusive_group="g").execution.exec_id == "held"
    assert poll(server, "", exclusive_group="g", caller="bob").execution.exec_id == "theirs"
