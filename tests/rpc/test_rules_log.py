"""The rules of the contract about output: 3, 4, 5, 6 and 13."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import check_totals, ended, follow, output, poll, refused, request, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
MIB = 1024 * 1024


def test_rule_03_a_deadline_touches_no_command(server: Server) -> None:
    """A call that runs out of time while it waits for the end leaves the command running."""
    order = request("sh", "-c", "sleep 1; echo done", exec_id="slow", wait=20)
    refused(lambda: server.stub.Exec(order, timeout=0.3), "DEADLINE_EXCEEDED")
    assert poll(server, "slow").execution.state == pb.STATE_RUNNING
    assert ended(server, "slow").exit_code == 0
    assert output(server, "slow") == b"done\n"


def test_rule_03_a_disconnect_touches_no_command(server: Server) -> None:
    """A follower that hangs up leaves the command running and is counted no more."""
    start(server, "sh", "-c", "echo on; sleep 1; echo done", exec_id="left")
    stream = follow(server, "left")
    next(stream)
    assert poll(server, "left").execution.followers == 1
    stream.cancel()
    eventually(lambda: poll(server, "left").execution.followers == 0)
    assert ended(server, "left").exit_code == 0
    assert output(server, "left") == b"on\ndone\n"


def test_rule_04_poll_never_consumes(own_server: Server) -> None:
    """The same request gives the same bytes, running and ended, and after a restart of the server."""
    start(own_server, "sh", "-c", "seq 1000; read x", exec_id="again", stdin_mode=api.STDIN_MODE_OPEN)
    shown(own_server, "again", b"\n1000\n")
    first = poll(own_server, "again", offset=17, max_bytes=1000)
    assert poll(own_server, "again", offset=17, max_bytes=1000).chunks == first.chunks
    own_server.stub.WriteStdin(api.WriteStdinRequest(exec_id="again", eof=True))
    ended(own_server, "again")
    assert poll(own_server, "again", offset=17, max_bytes=1000).chunks == first.chunks
    own_server.restart()
    later = eventually(lambda: poll(own_server, "again", offset=17, max_bytes=1000))
    assert later.chunks == first.chunks
    assert later.next_offset == 1017


def test_rule_05_no_reader_slows_the_command(server: Server) -> None:
    """A follower that does not read keeps neither the command nor another follower from its end."""
    start(server, "head", "-c", str(64 * MIB), "/dev/zero", exec_id="much")
    sleeper = follow(server, "much")
    next(sleeper)
    reader = follow(server, "much")
    size = sum(len(chunk.data) for message in reader for chunk in message.output.chunks)
    assert size == 64 * MIB
    assert ended(server, "much").exit_code == 0
    rest = sum(len(chunk.data) for message in sleeper for chunk in message.output.chunks)
    assert rest == 64 * MIB


def test_rule_06_produced_is_readable_plus_dropped(server: Server) -> None:
    """While a command overflows its cap, each reply adds up, per channel, and what can be read is what it says."""
    program = "for i in $(seq 400); do head -c 3000 /dev/zero; head -c 1000 /dev/zero >&2; done"
    start(server, "sh", "-c", program, exec_id="over", output=api.OutputLimit(max_bytes=100_000))
    execution = poll(server, "over").execution
    while execution.state == pb.STATE_RUNNING:
        execution = poll(server, "over").execution
        check_totals(execution)
    assert [total.bytes_produced for total in execution.totals] == [1_200_000, 400_000]
    assert execution.log_end_offset == 1_600_000
    for channel, total in zip((pb.CHANNEL_STDOUT, pb.CHANNEL_STDERR), execution.totals, strict=True):
        readable = output(server, "over", channels=[channel])
        assert len(readable) == total.bytes_produced - total.bytes_dropped
    assert execution.log_end_offset - execution.log_start_offset <= 100_000
    assert list(follow(server, "over"))[-1].end.totals == execution.totals


def test_rule_06_in_every_reply(server: Server) -> None:
    """Exec, Poll, List, Signal, Cancel and Follow give the same sums."""
    answer = run(server, "sh", "-c", "echo out; echo err >&2", exec_id="sums")
    cancelled = server.stub.Cancel(api.CancelRequest(exec_id="sums")).execution
    (listed,) = server.stub.List(api.ListRequest()).executions
    messages = list(follow(server, "sums"))
    for execution in (answer.execution, cancelled, listed, messages[0].snapshot, messages[-1].end):
        check_totals(execution)
        assert [total.bytes_produced for total in execution.totals] == [4, 4]


def test_rule_06_an_offset_past_the_end_is_out_of_range(server: Server) -> None:
    """Running or ended, a start beyond the end is refused with both numbers; the end itself is fine."""
    run(server, "echo", "hi", exec_id="short")
    answer = refused(lambda: poll(server, "short", offset=4), "OUT_OF_RANGE", "OFFSET_BEYOND_END")
    assert (answer.facts["offset"], answer.facts["end"]) == ("4", "3")
    refused(lambda: poll(server, "short", offset=2**64 - 1), "OUT_OF_RANGE")
    refused(lambda: list(follow(server, "short", offset=4)), "OUT_OF_RANGE")
    assert poll(server, "short", offset=3).eof
    start(server, "sleep", "30", exec_id="silent")
    refused(lambda: poll(server, "silent", offset=1), "OUT_OF_RANGE")


def test_rule_13_text_is_readable(server: Server) -> None:
    """Characters that reads cut in two are joined, invalid bytes replaced, wherever a poll is cut."""
    data = "añ€😀".encode() + b"\xff\xc3(" + b"ende" + b"\xe2\x82"
    run(server, "printf", "".join(f"\\{byte:03o}" for byte in data), exec_id="text")
    for size in (1, 2, 3, 5, 100):
        text, offset = "", 0
        while not (answer := poll(server, "text", offset=offset, max_bytes=size, text=True)).eof:
            text += "".join(chunk.text for chunk in answer.chunks)
            offset = answer.next_offset
        text += "".join(chunk.text for chunk in answer.chunks)
        assert text == data.decode(errors="replace")


def test_rule_13_text_joins_what_was_written_apart(server: Server) -> None:
    """A character whose bytes come one by one, with the other channel between them, is one character."""
    program = r"printf '\342'; sleep 0.05; printf '\303' >&2; sleep 0.05; printf '\202'; sleep 0.05; printf '\251' >&2"
    start(server, "sh", "-c", program + r"; sleep 0.05; printf '\254'", exec_id="apart")
    seen = {pb.CHANNEL_STDOUT: "", pb.CHANNEL_STDERR: ""}
    for message in follow(server, "apart", text=True):
        for chunk in message.output.chunks:
            seen[chunk.channel] += chunk.text
    assert seen == {pb.CHANNEL_STDOUT: "€", pb.CHANNEL_STDERR: "é"}


def test_rule_13_a_gap_joins_nothing(server: Server) -> None:
    """The bytes before and after a gap make no character that the command never wrote."""
    data = b"\xe2\x82" * 4096 + b"\xac" * 8192
    start(
        server, "sh", "-c", "read x; cat", exec_id="gap", stdin_mode=api.STDIN_MODE_OPEN,
        output=api.OutputLimit(max_bytes=8000),
    )  # fmt: skip
    stream = follow(server, "gap", text=True)
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="gap", data=b"\n" + data, eof=True))
    text = "".join(chunk.text for message in stream for chunk in message.output.chunks)
    assert text.count("€") <= 1  # the one in the middle, if it was kept


def test_rule_13_text_of_one_channel_has_nothing_of_the_other(server: Server) -> None:
    """The end of the channel that was not asked for is not replaced into the answer."""
    run(server, "sh", "-c", r"echo out; printf '\342\202' >&2", exec_id="other")
    answer = poll(server, "other", offset=6, text=True, channels=[pb.CHANNEL_STDOUT])
    assert not answer.chunks
    messages = follow(server, "other", offset=6, text=True, channels=[pb.CHANNEL_STDOUT])
    assert not [message for message in messages if message.HasField("output")]


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
def test_rule_13_bytes_are_the_truth(server: Server, tmp_path: Path, size: int) -> None:
    """Random bytes come back exactly, and can be asked for as text without an answer that is too large."""
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    run(server, "cat", str(tmp_path / "data"), exec_id="random", wait=20, text=True)
    assert output(server, "random") == data
    text, offset = "", 0
    while not (answer := poll(server, "random", offset=offset, text=True)).eof:
        text += "".join(chunk.text for chunk in answer.chunks)
        offset = answer.next_offset
    text += "".join(chunk.text for chunk in answer.chunks)
    assert text == data.decode(errors="replace")


def test_rule_03_a_wait_is_as_long_as_asked(server: Server) -> None:
    """Exec with wait answers after that time with what there is, and the command goes on."""
    before = time.monotonic()
    answer = server.stub.Exec(request("sh", "-c", "echo on; sleep 30", exec_id="wait", wait=0.5))
    assert 0.4 < time.monotonic() - before < 20
    assert answer.execution.state == pb.STATE_RUNNING
    assert [chunk.data for chunk in answer.chunks] == [b"on\n"]
    assert (answer.next_offset, answer.eof) == (3, False)
