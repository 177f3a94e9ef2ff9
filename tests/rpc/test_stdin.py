"""WriteStdin: bytes at an offset, once each, to the command that reads them."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import ended, follow, joined, output, poll, refused, run, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
OPEN = {"stdin_mode": api.STDIN_MODE_OPEN}


def write(server: Server, exec_id: str, offset: int, data: bytes = b"", eof: bool = False, timeout: float = 20) -> int:
    """Returns bytes_written."""
    request = api.WriteStdinRequest(exec_id=exec_id, offset=offset, data=data, eof=eof)
    return server.stub.WriteStdin(request, timeout=timeout).stdin.bytes_written


@pytest.mark.parametrize("fields", [{}, {"stdin_mode": api.STDIN_MODE_NULL}, {"stdin_mode": api.STDIN_MODE_BYTES}])
def test_no_input_is_end_of_file_at_once(server: Server, fields: dict[str, Any]) -> None:
    """A command without input reads its end, and takes no more."""
    assert run(server, "cat", exec_id="null", **fields).execution.exit_code == 0
    start(server, "sleep", "30", exec_id="runs", **fields)
    refused(lambda: write(server, "runs", 0, b"x"), "FAILED_PRECONDITION", "STDIN_CLOSED")
    assert not poll(server, "runs").execution.stdin.open


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 3_000_000])
def test_bytes_are_given_whole(server: Server, size: int) -> None:
    """Input that comes with the request reaches the command, to the byte, and then its end does."""
    data = os.urandom(size)
    answer = run(server, "sha256sum", stdin_mode=api.STDIN_MODE_BYTES, initial_stdin=data)
    assert joined(answer.chunks).split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert answer.execution.stdin.bytes_written == size


def test_open_input_begins_with_the_first_bytes(server: Server) -> None:
    """initial_stdin comes first, and later writes continue at its end."""
    start(server, "cat", exec_id="cat", initial_stdin=b"one\n", **OPEN)
    eventually(lambda: poll(server, "cat").execution.stdin.bytes_written == 4)
    assert poll(server, "cat").execution.stdin.open
    assert write(server, "cat", 4, b"two\n", eof=True) == 8
    execution = ended(server, "cat")
    assert (execution.stdin.bytes_written, execution.stdin.open) == (8, False)
    assert output(server, "cat") == b"one\ntwo\n"


def test_what_was_accepted_is_skipped(server: Server) -> None:
    """A repeated or overlapping write adds only what is new."""
    start(server, "cat", exec_id="cat", **OPEN)
    assert write(server, "cat", 0, b"abc") == 3
    assert write(server, "cat", 0, b"abc") == 3
    assert write(server, "cat", 1, b"bcde") == 5
    assert write(server, "cat", 0, b"a") == 5
    assert write(server, "cat", 5, b"", eof=True) == 5
    ended(server, "cat")
    assert output(server, "cat") == b"abcde"


def test_beyond_what_was_written_is_out_of_range(server: Server) -> None:
    """A hole is refused, and the detail says where to go on; nothing was written."""
    start(server, "cat", exec_id="cat", **OPEN)
    write(server, "cat", 0, b"abc")
    answer = refused(lambda: write(server, "cat", 4, b"x"), "OUT_OF_RANGE")
    assert answer.facts["bytes_written"] == "3"
    write(server, "cat", 3, b"d", eof=True)
    ended(server, "cat")
    assert output(server, "cat") == b"abcd"


def test_a_slow_reader_is_told_how_far_it_got(server: Server) -> None:
    """A command that does not read ends the call at its deadline, with the offset at which a retry goes on."""
    start(server, "sh", "-c", "sleep 1.2; sha256sum", exec_id="slow", **OPEN)
    data = os.urandom(300_000)
    answer = refused(lambda: write(server, "slow", 0, data, timeout=0.6), "DEADLINE_EXCEEDED")
    done = int(answer.facts["bytes_written"])
    assert 0 < done < len(data)
    assert poll(server, "slow").execution.stdin.bytes_written >= done
    assert write(server, "slow", 0, data, eof=True) == len(data)
    ended(server, "slow")
    assert output(server, "slow").split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_blocked_write_blocks_nothing_else(server: Server) -> None:
    """While a write waits for the command, Poll, Signal and the end work."""
    start(server, "sh", "-c", "echo on; sleep 60", exec_id="deaf", **OPEN)
    shown(server, "deaf", b"on")
    request = api.WriteStdinRequest(exec_id="deaf", data=b"x" * 1_000_000)
    blocked = server.stub.WriteStdin.future(request, timeout=20)
    eventually(lambda: poll(server, "deaf").execution.stdin.bytes_written > 0)
    server.stub.Signal(api.SignalRequest(exec_id="deaf", signal=9))
    assert ended(server, "deaf").signal == 9
    refused(blocked.result, "FAILED_PRECONDITION")


def test_ten_mebibytes_in_retried_chunks(server: Server) -> None:
    """Each chunk sent twice, some cut short by a deadline: not a byte is lost or doubled."""
    data = os.urandom(10 * 1024 * 1024)
    start(server, "cat", exec_id="cat", output=api.OutputLimit(max_bytes=32 * 1024 * 1024), **OPEN)
    for offset in range(0, len(data), 1_000_000):
        part = data[offset : offset + 1_000_000]
        if offset % 3_000_000 == 0:
            server.stub.WriteStdin.future(api.WriteStdinRequest(exec_id="cat", offset=offset, data=part)).cancel()
        assert write(server, "cat", offset, part) == offset + len(part)
        assert write(server, "cat", offset, part) == offset + len(part)
    write(server, "cat", len(data), eof=True)
    ended(server, "cat")
    assert output(server, "cat") == data


def test_two_writers_of_the_same_bytes(server: Server) -> None:
    """Two calls that race with the same write give it once."""
    start(server, "sh", "-c", "sleep 0.5; cat", exec_id="cat", **OPEN)
    data = os.urandom(500_000)
    request = api.WriteStdinRequest(exec_id="cat", data=data)
    calls = [server.stub.WriteStdin.future(request, timeout=20) for _ in range(4)]
    assert [call.result().stdin.bytes_written for call in calls] == [len(data)] * 4
    write(server, "cat", len(data), eof=True)
    ended(server, "cat")
    assert output(server, "cat") == data


def test_after_the_end_of_input_nothing_is_taken(server: Server) -> None:
    """eof is final: more input is refused, and the command has seen its end."""
    start(server, "sh", "-c", "cat; sleep 30", exec_id="cat", **OPEN)
    write(server, "cat", 0, b"x", eof=True)
    refused(lambda: write(server, "cat", 1, b"y"), "FAILED_PRECONDITION", "STDIN_CLOSED")
    assert not poll(server, "cat").execution.stdin.open
    shown(server, "cat", b"x")


def test_a_retry_of_the_last_write_succeeds(server: Server) -> None:
    """Whoever lost the answer to the write with eof gets it again: all of it was accepted before."""
    start(server, "sh", "-c", "cat; sleep 30", exec_id="cat", **OPEN)
    assert write(server, "cat", 0, b"abc", eof=True) == 3
    assert write(server, "cat", 0, b"abc", eof=True) == 3


def test_a_command_that_closes_its_input(server: Server) -> None:
    """Who closes standard input is no failure of the command, and writers are told."""
    start(server, "sh", "-c", "exec <&-; echo closed; sleep 1; exit 4", exec_id="shut", **OPEN)
    shown(server, "shut", b"closed")
    refused(lambda: write(server, "shut", 0, b"x" * 200_000), "FAILED_PRECONDITION", "STDIN_CLOSED")
    assert ended(server, "shut").exit_code == 4


def test_after_the_end_of_the_command_nothing_is_taken(server: Server) -> None:
    """An ended command has no input, and what it did not read was accepted, not lost from the count."""
    start(server, "sh", "-c", "read x; exit 0", exec_id="one", **OPEN)
    assert write(server, "one", 0, b"line\nmore") == 9
    assert ended(server, "one").stdin.bytes_written == 9
    refused(lambda: write(server, "one", 9, b"x"), "FAILED_PRECONDITION", "STDIN_CLOSED")


def test_input_from_one_output_to_another(server: Server) -> None:
    """What one command writes can be fed to another as it comes: channels stay bytes."""
    start(server, "head", "-c", "300000", "/dev/urandom", exec_id="from")
    start(server, "sha256sum", exec_id="to", **OPEN)
    offset = 0
    for message in follow(server, "from"):
        data = joined(message.output.chunks)
        offset = write(server, "to", offset, data) if data else offset
    write(server, "to", offset, eof=True)
    assert ended(server, "to").state == pb.STATE_SUCCEEDED
    assert output(server, "to").split()[0].decode() == hashlib.sha256(output(server, "from")).hexdigest()
