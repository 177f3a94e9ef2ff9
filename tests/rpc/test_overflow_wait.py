"""OVERFLOW_WAIT: a command waits for its readers, and nothing that they have not used up is dropped."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import (
    START_SERVER,
    alive,
    check_totals,
    duration,
    ended,
    follow,
    joined,
    output,
    poll,
    refused,
    request,
    start,
)
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
KIB = 1024
LIMIT = 256 * KIB
# The bytes in the two pipes of a command, and the segment that is being written.
SLACK = 2 * 64 * KIB + LIMIT // 8
# 64 lines of 16 KiB, each of them its own number; then 3.
LINES = 64
COUNT = ("sh", "-c", f"i=0; while [ $i -lt {LINES} ]; do printf '%016383d\\n' $i; i=$((i+1)); done; exit 3")
WHOLE = b"".join(b"%016383d\n" % number for number in range(LINES))


def waits(max_bytes: int = LIMIT) -> dict[str, Any]:
    return {"output": api.OutputLimit(max_bytes=max_bytes, overflow=api.OVERFLOW_WAIT)}


def waiting(server: Server, exec_id: str) -> pb.Execution:
    """Return the execution, once its command waits for a reader."""

    def look() -> pb.Execution | None:
        execution = poll(server, exec_id, tail_bytes=0).execution
        return execution if execution.waiting == pb.WAITING_READER else None

    found = eventually(look)
    assert found is not None
    return found


def acknowledge(server: Server, exec_id: str, holder: str, offset: int = 0, release: bool = False) -> int:
    answer = server.stub.Acknowledge(
        api.AcknowledgeRequest(exec_id=exec_id, holder=holder, offset=offset, release=release), timeout=60
    )
    held: int = answer.held_offset
    return held


def drained(server: Server, exec_id: str, holder: str, offset: int = 0) -> tuple[bytes, pb.Execution]:
    """Return all that a holder gets which follows and acknowledges each message, and the end."""
    data = b""
    for message in follow(server, exec_id, offset=offset, holder=holder):
        assert not message.HasField("gap"), message
        data += joined(message.output.chunks)
        if message.HasField("end"):
            return data, message.end
        if message.HasField("output"):
            acknowledge(server, exec_id, holder, message.next_offset)
    raise AssertionError("the stream ended without an end")


def kept(spool: Path) -> int:
    """Return the bytes of output on disk. The oldest segment may be dropped while we look."""
    size = 0
    for file in spool.glob("*.log"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def test_a_holder_gets_every_byte_of_much_more_than_the_limit(server: Server) -> None:
    """A command that writes four times its limit waits for the holder, who gets all of it and the true end."""
    start(server, *COUNT, exec_id="all", **waits())
    execution = waiting(server, "all")
    assert execution.overflow_waits
    assert execution.max_output_bytes == LIMIT
    assert (execution.log_start_offset, execution.held_offset) == (0, 0)
    assert str(LIMIT) in execution.waiting_message
    data, end = drained(server, "all", "me")
    assert data == WHOLE
    assert (end.state, end.exit_code, end.waiting) == (pb.STATE_FAILED, 3, pb.WAITING_UNSPECIFIED)
    check_totals(end)


@pytest.mark.parametrize("limit", [1, 7])
def test_the_smallest_limits_hold_too(server: Server, limit: int) -> None:
    """A log of a byte or some moves on byte by byte, and loses none."""
    start(server, "sh", "-c", "printf 0123456789; printf abcde >&2", exec_id=f"tiny{limit}", **waits(limit))
    data, end = drained(server, f"tiny{limit}", "me")
    assert sorted(data) == sorted(b"0123456789abcde")
    check_totals(end)


def test_the_spool_stays_below_the_limit(server: Server) -> None:
    """However far the holder is behind, the log on disk is never larger than the limit and what is in the pipes."""
    execution = start(server, *COUNT, exec_id="disk", **waits())
    spool = server.spool_of(execution.pid)
    offset, largest, data = 0, 0, b""
    while True:
        answer = poll(server, "disk", offset=offset, max_bytes=20_000, holder="slow", wait=60)
        data += joined(answer.chunks)
        offset = answer.next_offset
        largest = max(largest, kept(spool))
        assert not answer.skipped_bytes
        if answer.eof:
            break
    assert data == WHOLE
    assert LIMIT // 2 < largest <= LIMIT + SLACK


def test_without_a_holder_it_waits_whoever_looks(server: Server) -> None:
    """A viewer without a holder reads all there is, and moves nothing."""
    start(server, *COUNT, exec_id="viewed", **waits())
    waiting(server, "viewed")
    stream = follow(server, "viewed")
    seen = b""
    while len(seen) < LIMIT:
        seen += joined(next(stream).output.chunks)
    stream.cancel()
    assert poll(server, "viewed", offset=len(seen)).next_offset == len(seen)
    assert waiting(server, "viewed").log_start_offset == 0
    server.stub.Cancel(api.CancelRequest(exec_id="viewed"))
    assert ended(server, "viewed").reason == pb.REASON_CANCELLED
    assert WHOLE.startswith(output(server, "viewed"))


def test_calls_that_wait_for_the_end_answer_when_it_waits(server: Server) -> None:
    """Exec and Get with wait return at once when the command waits for a reader: its end would never come."""
    answer = server.stub.Exec(request(*COUNT, exec_id="held", wait=3000, **waits()), timeout=60)
    assert answer.execution.waiting == pb.WAITING_READER
    assert WHOLE.startswith(joined(answer.chunks))
    got = server.stub.Get(api.GetRequest(exec_id="held", wait=duration(60)), timeout=60).execution
    assert got.waiting == pb.WAITING_READER
    acknowledge(server, "held", "one", release=True)
    got = eventually(lambda: server.stub.Get(api.GetRequest(exec_id="held", wait=duration(60)), timeout=60).execution)
    assert ended(server, "held").exit_code == 3


def test_release_lets_it_go_on_until_another_holder_comes(server: Server) -> None:
    """After the last holder left for good, the oldest output is dropped; the next holder holds from where it begins."""
    # Reads a line of input, then writes twice its limit.
    script = f"while read -r line; do head -c {2 * LIMIT} /dev/zero; done"
    start(server, "sh", "-c", script, exec_id="go", stdin_mode=api.STDIN_MODE_OPEN, **waits())
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="go", offset=0, data=b"1\n"))
    waiting(server, "go")
    acknowledge(server, "go", "first", release=True)
    eventually(lambda: poll(server, "go", tail_bytes=0).execution.log_end_offset == 2 * LIMIT)
    stream = follow(server, "go", offset=2 * LIMIT, holder="second")
    next(stream)
    server.stub.WriteStdin(api.WriteStdinRequest(exec_id="go", offset=2, data=b"2\n", eof=True))
    assert waiting(server, "go").held_offset == 2 * LIMIT
    stream.cancel()
    data, end = drained(server, "go", "second", offset=2 * LIMIT)
    assert len(data) == 2 * LIMIT
    assert end.exit_code == 0


def test_the_slowest_holder_counts(server: Server) -> None:
    """With two holders nothing is dropped that one of them has not used up; one that left for good no longer counts."""
    start(server, *COUNT, exec_id="two", **waits())
    waiting(server, "two")
    slow = follow(server, "two", offset=0, holder="slow")
    next(slow)
    assert acknowledge(server, "two", "quick", offset=LIMIT // 2) == 0
    assert waiting(server, "two").log_start_offset == 0
    acknowledge(server, "two", "slow", release=True)
    slow.cancel()
    data, end = drained(server, "two", "quick", offset=LIMIT // 2)
    assert WHOLE.endswith(data)
    assert len(data) == len(WHOLE) - LIMIT // 2
    assert end.exit_code == 3


def test_what_was_sent_and_not_acknowledged_is_kept(server: Server) -> None:
    """A holder that was cut after it received the whole log gets the same bytes again."""
    start(server, *COUNT, exec_id="cut", **waits())
    waiting(server, "cut")
    stream, received = follow(server, "cut", holder="me"), b""
    while len(received) < LIMIT:
        received += joined(next(stream).output.chunks)
    stream.cancel()
    data, _ = drained(server, "cut", "me", offset=0)
    assert data == WHOLE


def test_an_end_while_the_holder_is_behind_loses_nothing(server: Server) -> None:
    """Output in the pipes when the command exits is stored beyond the limit, and its end is told at once."""
    size = LIMIT + 32 * KIB  # the limit, and less than a pipe holds
    start(server, "head", "-c", str(size), "/dev/zero", exec_id="behind", **waits())
    execution = ended(server, "behind")
    assert (execution.exit_code, execution.log_start_offset, execution.log_end_offset) == (0, 0, size)
    check_totals(execution)
    assert output(server, "behind") == bytes(size)
    assert acknowledge(server, "behind", "late", offset=size) == 0  # after the end nothing is dropped


def test_a_timeout_goes_on_while_it_waits(server: Server) -> None:
    """The command's own timeout ends it, and what it wrote is kept."""
    start(server, "sh", "-c", "exec cat /dev/zero", exec_id="timed", timeout=2, **waits())
    execution = ended(server, "timed")
    assert execution.reason == pb.REASON_TIMED_OUT
    assert execution.log_start_offset == 0
    check_totals(execution)


def test_one_channel_of_two_holds_only_its_own(server: Server) -> None:
    """To a holder of standard output the bytes of standard error count as given."""
    script = f"head -c {4 * LIMIT} /dev/zero >&2; echo done; head -c {4 * LIMIT} /dev/zero >&2"
    start(server, "sh", "-c", script, exec_id="channel", **waits())
    data = b""
    for message in follow(server, "channel", holder="out", channels=[pb.CHANNEL_STDOUT]):
        assert not message.HasField("gap")
        if message.HasField("output"):
            data += joined(message.output.chunks)
            acknowledge(server, "channel", "out", message.next_offset)
    assert data == b"done\n"
    assert message.end.log_end_offset == 8 * LIMIT + len(data)


def test_two_streams_of_one_holder_hold_both_channels(server: Server) -> None:
    """What one of them passes over is the other's: it is kept until it is acknowledged."""
    start(server, "sh", "-c", "printf abc; exec sleep 60", exec_id="both", **waits())
    streams = []
    for channel in (pb.CHANNEL_STDOUT, pb.CHANNEL_STDERR):
        streams.append(follow(server, "both", offset=0, holder="me", channels=[channel], heartbeat_interval=1))
        assert next(message for message in streams[-1] if message.HasField("heartbeat"))
    assert poll(server, "both").execution.held_offset == 0
    assert acknowledge(server, "both", "me", 3) == 3
    server.stub.Cancel(api.CancelRequest(exec_id="both"), timeout=60)
    for stream in streams:
        assert [message for message in stream if message.HasField("end")]


def test_kills_of_server_runner_and_shim_move_no_floor(start_server: START_SERVER) -> None:
    """Output that a holder has not used up survives the death of each process that keeps it."""
    server = start_server()
    start(server, *COUNT, exec_id="kills", **waits())
    waiting(server, "kills")
    acknowledge(server, "kills", "me", offset=LIMIT // 2)
    eventually(lambda: poll(server, "kills", tail_bytes=0).execution.log_start_offset > 0)
    held = waiting(server, "kills").held_offset
    assert held == LIMIT // 2
    for harm in (server.restart, server.kill_runner, lambda: os.kill(server.shim_pid("kills"), signal.SIGKILL)):
        harm()
        assert waiting(server, "kills").held_offset == held
    data, end = drained(server, "kills", "me", offset=LIMIT // 2)
    assert data == WHOLE[LIMIT // 2 :]
    assert end.exit_code == 3


def test_nobody_reads_for_the_waiting_timeout(start_server: START_SERVER) -> None:
    """A command that waits without a holder is ended, though a caller looks at it; what it wrote stays."""
    server = start_server("--waiting-timeout", "1s")
    execution = start(server, *COUNT, exec_id="gone", **waits())
    stream = follow(server, "gone")
    end = ended(server, "gone")
    stream.cancel()
    assert (end.reason, end.signal) == (pb.REASON_UNATTENDED, signal.SIGTERM)
    assert end.log_start_offset == 0
    assert not alive(execution.pid)
    assert output(server, "gone") == WHOLE[: end.log_end_offset]


def test_a_holder_that_reads_nothing_may_take_its_time(start_server: START_SERVER) -> None:
    """While a holder is attached the clock does not run; its own unattended_timeout is what counts then."""
    server = start_server("--waiting-timeout", "never")
    start(server, *COUNT, exec_id="held", unattended_timeout=1, **waits())
    stream = follow(server, "held", holder="me", heartbeat_interval=1)
    beats = 0
    while beats < 3:  # three times as long as it would wait without
        beats += next(stream).HasField("heartbeat")
    assert waiting(server, "held").state == pb.STATE_RUNNING
    stream.cancel()
    assert ended(server, "held").reason == pb.REASON_UNATTENDED


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Provide a disk of eight megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield path
    eventually(lambda: subprocess.run(["umount", str(path)], capture_output=True).returncode == 0)


def fill(disk: Path) -> Path:
    """Takes all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


@pytest.mark.parametrize("overflow", [api.OVERFLOW_WAIT, api.OVERFLOW_DROP_OLDEST])
def test_a_full_disk_is_told_and_costs_no_byte(disk: Path, overflow: api.Overflow.ValueType) -> None:
    """A command whose output finds no space waits, says so, and goes on when there is space again."""
    server = Server(disk / "state")
    try:
        size = 300_000
        limit = api.OutputLimit(overflow=overflow)
        script = f"read go; seq 1 10000000 | head -c {size}"
        start(server, "sh", "-c", script, exec_id="full", stdin_mode=api.STDIN_MODE_OPEN, output=limit)
        ballast = fill(disk)
        server.stub.WriteStdin(api.WriteStdinRequest(exec_id="full", data=b"go\n"), timeout=60)
        execution = eventually(lambda: _waits_for_disk(server, "full"))
        assert execution.state == pb.STATE_RUNNING
        assert "disk is full" in execution.waiting_message
        ballast.unlink()
        end = ended(server, "full")
        assert (end.exit_code, end.log_start_offset, end.log_end_offset) == (0, 0, size)
        assert output(server, "full").startswith(b"1\n2\n3\n")
    finally:
        server.close()


def test_an_ended_command_on_a_full_disk_says_what_it_waits_for(disk: Path) -> None:
    """It is RUNNING until its last output is stored, and says so; Cancel gives that output up, and counts it."""
    server = Server(disk / "state")
    try:
        start(server, "sh", "-c", "read go; echo last", exec_id="last", stdin_mode=api.STDIN_MODE_OPEN)
        ballast = fill(disk)
        server.stub.WriteStdin(api.WriteStdinRequest(exec_id="last", data=b"go\n"), timeout=60)
        execution = eventually(lambda: _waits_for_disk(server, "last"))
        eventually(lambda: "has exited" in poll(server, "last", tail_bytes=0).execution.waiting_message)
        assert not alive(execution.pid)
        server.stub.Cancel(api.CancelRequest(exec_id="last"), timeout=60)
        end = ended(server, "last")
        assert (end.exit_code, end.totals[0].bytes_produced, end.totals[0].bytes_dropped) == (0, 5, 5)
        ballast.unlink()
    finally:
        server.close()


def _waits_for_disk(server: Server, exec_id: str) -> pb.Execution | None:
    execution = poll(server, exec_id, tail_bytes=0).execution
    return execution if execution.waiting == pb.WAITING_DISK else None


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"exec_id": "nothing"}, "NOT_FOUND", "nothing"),
        ({"holder": ""}, "INVALID_ARGUMENT", "holder"),
        ({"holder": "x" * 65}, "INVALID_ARGUMENT", "65"),
        ({"offset": 10**9}, "OUT_OF_RANGE", "1000000000"),
        ({"exec_id": "drops"}, "FAILED_PRECONDITION", "OVERFLOW_WAIT"),
    ],
)
def test_a_wrong_acknowledgement_is_told(server: Server, fields: dict[str, Any], code: str, said: str) -> None:
    """Each refusal names what was wrong, and moves nothing."""
    start(server, *COUNT, exec_id="right", **waits())
    start(server, "true", exec_id="drops")
    held = waiting(server, "right").held_offset
    asked = api.AcknowledgeRequest(**{"exec_id": "right", "holder": "me", **fields})
    assert said in refused(lambda: server.stub.Acknowledge(asked, timeout=60), code).message
    assert waiting(server, "right").held_offset == held


def test_only_what_waits_can_be_held(server: Server) -> None:
    """A holder of an execution that drops its oldest output would believe what is not true."""
    start(server, "true", exec_id="plain")
    for call in (
        lambda: list(follow(server, "plain", holder="me")),
        lambda: poll(server, "plain", offset=0, holder="me"),
    ):
        assert "OVERFLOW_WAIT" in refused(call, "INVALID_ARGUMENT").message


def test_holders_are_limited(server: Server) -> None:
    """A caller cannot make holders without end."""
    start(server, *COUNT, exec_id="many", **waits())
    waiting(server, "many")
    for number in range(64):
        acknowledge(server, "many", f"holder {number}", offset=1)
    refused(lambda: acknowledge(server, "many", "one more", offset=1), "RESOURCE_EXHAUSTED")


def test_holders_of_what_has_ended_are_not_limited(server: Server) -> None:
    """Nothing is dropped after an end, so that nothing is held: each of many readers gets all of it."""
    start(server, "echo", "hi", exec_id="over", **waits())
    ended(server, "over")
    for number in range(100):
        assert joined(poll(server, "over", offset=0, holder=f"reader{number}").chunks) == b"hi\n"


def test_a_follow_finds_the_newest_of_a_group(server: Server) -> None:
    """Follow and Get take an exclusive_group instead of an id, as Poll does."""
    start(server, "echo", "hello", exec_id="grouped", exclusive_group="g")
    messages = list(follow(server, "", exclusive_group="g"))
    assert messages[-1].end.exec_id == "grouped"
    assert server.stub.Get(api.GetRequest(exclusive_group="g")).execution.exec_id == "grouped"
    refused(lambda: list(follow(server, "grouped", exclusive_group="g")), "INVALID_ARGUMENT")
