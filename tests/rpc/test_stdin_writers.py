"""Writers of one standard input: each has a counter of its own, and each byte arrives once or its write fails."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from rexec.v1 import execution_service_pb2 as api

from rexec_server.runner.wire import HEADER, encode
from tests.rpc.calls import ended, output, poll, refused, shown, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True
OPEN = {"stdin_mode": api.STDIN_MODE_OPEN}
REMEMBERED = 16


def write(
    server: Server,
    exec_id: str,
    writer: str,
    offset: int = 0,
    data: bytes = b"",
    *,
    eof: bool = False,
    timeout: float = 20,
) -> tuple[int, int]:
    """Returns bytes_written and skipped_bytes."""
    request = api.WriteStdinRequest(exec_id=exec_id, writer=writer, offset=offset, data=data, eof=eof)
    answer = server.stub.WriteStdin(request, timeout=timeout)
    return answer.stdin.bytes_written, answer.skipped_bytes


def test_the_server_says_that_it_knows_writers(server: Server) -> None:
    """A client that names itself looks for this feature first."""
    assert "writer" in server.stub.GetServerInfo(api.GetServerInfoRequest()).features


def test_writers_in_turn(server: Server) -> None:
    """Two writers and one without a name count for themselves, and all bytes arrive in the order of the calls."""
    start(server, "cat", exec_id="cat", **OPEN)
    assert write(server, "cat", "a", 0, b"one ") == (4, 0)
    assert write(server, "cat", "b", 0, b"two ") == (4, 0)
    assert write(server, "cat", "", 0, b"nobody ") == (7, 0)
    assert write(server, "cat", "a", 4, b"three ") == (10, 0)
    assert write(server, "cat", "b", 4, b"four") == (8, 0)
    assert poll(server, "cat").execution.stdin.bytes_written == 7
    assert write(server, "cat", "b", 8, eof=True) == (8, 0)
    assert ended(server, "cat").stdin.bytes_written == 7
    assert output(server, "cat") == b"one two nobody three four"


@pytest.mark.parametrize("writer", ["", "me"])
def test_a_repeat_is_told(server: Server, writer: str) -> None:
    """The answer says how much of the data had been there before: for a second writer that is a warning."""
    start(server, "cat", exec_id="cat", **OPEN)
    assert write(server, "cat", writer, 0, b"abc") == (3, 0)
    assert write(server, "cat", writer, 0, b"abc") == (3, 3)
    assert write(server, "cat", writer, 1, b"bcde") == (5, 2)
    assert write(server, "cat", writer, 0, b"a") == (5, 1)
    assert write(server, "cat", writer, 0) == (5, 0)
    write(server, "cat", writer, 5, eof=True)
    ended(server, "cat")
    assert output(server, "cat") == b"abcde"


def test_empty_data_asks(server: Server) -> None:
    """A question moves nothing, makes no writer known, and is answered for this writer; a hole is refused."""
    start(server, "cat", exec_id="cat", **OPEN)
    write(server, "cat", "a", 0, b"abc")
    assert write(server, "cat", "a") == (3, 0)
    for number in range(REMEMBERED * 2):
        assert write(server, "cat", f"asks-{number}") == (0, 0)
    assert write(server, "cat", "a", 3) == (3, 0)
    answer = refused(lambda: write(server, "cat", "b", 1, b"x"), "OUT_OF_RANGE")
    assert answer.facts["bytes_written"] == "0"
    answer = refused(lambda: write(server, "cat", "a", 4, b"x"), "OUT_OF_RANGE")
    assert answer.facts["bytes_written"] == "3"


def test_the_one_who_wrote_longest_ago_is_forgotten(server: Server) -> None:
    """A seventeenth takes its place; its next write fails, and so does its repeat of the very first."""
    start(server, "cat", exec_id="cat", **OPEN)
    for number in range(REMEMBERED):
        write(server, "cat", f"w{number}", 0, b"%02d " % number)
    write(server, "cat", "w0", 3, b"again ")  # so that w1 is the one who wrote longest ago
    assert write(server, "cat", "new", 0, b"new") == (3, 0)
    for offset, data in ((3, b"x"), (0, b"01 "), (0, b"")):
        refused(lambda o=offset, d=data: write(server, "cat", "w1", o, d), "FAILED_PRECONDITION", "WRITER_FORGOTTEN")
    assert write(server, "cat", "w0") == (9, 0)
    assert write(server, "cat", "w2", 3, b".") == (4, 0)
    write(server, "cat", "", 0, eof=True)
    ended(server, "cat")
    assert output(server, "cat") == b"".join(b"%02d " % number for number in range(REMEMBERED)) + b"again new."


def test_more_writers_than_anything_remembers(server: Server) -> None:
    """However many have been forgotten, none of them is taken for a new one in the middle of its input."""
    start(server, "cat", exec_id="cat", **OPEN)
    for number in range(500):
        assert write(server, "cat", f"w{number}", 0, b"x") == (1, 0)
    for number in (0, 250, 483):
        refused(lambda n=number: write(server, "cat", f"w{n}", 1, b"y"), "FAILED_PRECONDITION", "WRITER_FORGOTTEN")
    assert write(server, "cat", "w499", 1, b"z", eof=True) == (2, 0)
    ended(server, "cat")
    assert output(server, "cat") == b"x" * 500 + b"z"


def test_the_end_of_input_is_for_all(server: Server) -> None:
    """After one writer's eof no other may write; who lost the answer to it gets it again."""
    start(server, "sh", "-c", "cat; sleep 30", exec_id="cat", **OPEN)
    write(server, "cat", "a", 0, b"a")
    assert write(server, "cat", "b", 0, b"bb", eof=True) == (2, 0)
    assert write(server, "cat", "b", 0, b"bb", eof=True)[0] == 2
    refused(lambda: write(server, "cat", "a", 1, b"x"), "FAILED_PRECONDITION", "STDIN_CLOSED")
    refused(lambda: write(server, "cat", "b", 2, b"x"), "FAILED_PRECONDITION", "STDIN_CLOSED")
    shown(server, "cat", b"abb")


@pytest.mark.parametrize("name", ["x" * 64, "ä" * 64, "a b\n\0"])
def test_a_name_is_any_text(server: Server, name: str) -> None:
    """Up to 64 characters of any kind, and two names are never taken for one."""
    start(server, "cat", exec_id="cat", **OPEN)
    assert write(server, "cat", name, 0, b"1") == (1, 0)
    assert write(server, "cat", name[:-1], 0, b"2") == (1, 0)
    assert write(server, "cat", name, 1, b"3", eof=True) == (2, 0)
    ended(server, "cat")
    assert output(server, "cat") == b"123"


def test_a_name_that_is_too_long(server: Server) -> None:
    """It is refused, and nothing is written."""
    start(server, "cat", exec_id="cat", **OPEN)
    answer = refused(lambda: write(server, "cat", "x" * 65, 0, b"1"), "INVALID_ARGUMENT")
    assert "writer: 65 characters; at most 64" in answer.message
    assert write(server, "cat", "x" * 64) == (0, 0)


def test_a_slow_reader_tells_each_writer_its_own_count(server: Server) -> None:
    """The deadline's bytes_written is that of the writer who called."""
    start(server, "sh", "-c", "echo on; sleep 60", exec_id="deaf", **OPEN)
    shown(server, "deaf", b"on")
    write(server, "deaf", "", 0, b"12345")
    answer = refused(lambda: write(server, "deaf", "a", 0, bytes(1_000_000), timeout=0.6), "DEADLINE_EXCEEDED")
    done = int(answer.facts["bytes_written"])
    assert 5 < done < 1_000_000
    answer = refused(lambda: write(server, "deaf", "b", 0, b"x", timeout=0.6), "DEADLINE_EXCEEDED")
    assert answer.facts["bytes_written"] == "0"
    assert write(server, "deaf", "a")[0] >= done


def test_a_writer_that_waits_delays_nobody_elses_call(server: Server) -> None:
    """While writes wait for a command that does not read, Poll, questions and the end are answered."""
    start(server, "sh", "-c", "echo on; sleep 60", exec_id="deaf", **OPEN)
    shown(server, "deaf", b"on")
    data = bytes(1_000_000)
    requests = [api.WriteStdinRequest(exec_id="deaf", writer=f"w{number}", data=data) for number in range(8)]
    blocked = [server.stub.WriteStdin.future(request, timeout=30) for request in requests]
    eventually(lambda: any(write(server, "deaf", f"w{number}")[0] for number in range(8)))
    assert not any(call.done() for call in blocked)
    assert write(server, "deaf", "asks") == (0, 0)
    server.stub.Signal(api.SignalRequest(exec_id="deaf", signal=9))
    assert ended(server, "deaf").signal == 9
    for call in blocked:
        refused(call.result, "FAILED_PRECONDITION", "STDIN_CLOSED")


class OldSupervisor:
    """The control socket of a supervisor of the first version: it knows no `info`, and takes a writer for nothing."""

    def __init__(self, directory: Path) -> None:
        self.writes: list[dict[str, Any]] = []
        os.rename(directory / "control", directory / "control.kept")
        self._listener = self._connection = socket.socket(socket.AF_UNIX)
        fd = os.open(directory, os.O_RDONLY)
        self._listener.bind(f"/proc/self/fd/{fd}/control")
        os.close(fd)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with suppress(OSError):  # the server may have left already
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connection = connection
                with connection, connection.makefile("rb") as file, suppress(ConnectionError):
                    while header := file.read(HEADER.size):
                        request = json.loads(file.read(*HEADER.unpack(header)))
                        connection.sendall(encode({"number": request["number"], **self._answer(request)}))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] != "stdin":
            return {"error": f"unknown request {request['op']!r}"}
        self.writes.append(request)
        return {"error": None, "bytes_written": request["offset"] + 3, "open": True}


@contextmanager
def supervised_as_before(server: Server, exec_id: str) -> Iterator[OldSupervisor]:
    directory = server.spool_of(poll(server, exec_id).execution.pid)
    old = OldSupervisor(directory)
    try:
        yield old
    finally:
        old.close()
        os.rename(directory / "control.kept", directory / "control")


def test_a_supervisor_of_an_earlier_version(server: Server) -> None:
    """It would count a named writer with all others: such a write is refused; one without a name goes on as before."""
    start(server, "sleep", "60", exec_id="old", **OPEN)
    with supervised_as_before(server, "old") as old:
        refused(lambda: write(server, "old", "a", 0, b"abc"), "FAILED_PRECONDITION", "WRITER_NOT_SUPPORTED")
        assert old.writes == []
        assert write(server, "old", "", 0, b"abc") == (3, 0)
        assert old.writes[0]["data"] == "YWJj"


def test_what_waits_is_bounded(own_server: Server) -> None:
    """A command that does not read costs server and supervisor only as much memory as is said, and delays no other."""
    start(own_server, "sh", "-c", "echo on; sleep 60", exec_id="deaf", **OPEN)
    shown(own_server, "deaf", b"on")
    shim = psutil.Process(own_server.shim_pid("deaf"))
    before = shim.memory_info().rss
    requests = [api.WriteStdinRequest(exec_id="deaf", writer=f"w{n}", data=bytes(4_000_000)) for n in range(24)]
    calls = [own_server.stub.WriteStdin.future(request, timeout=60) for request in requests]
    eventually(lambda: any(call.done() for call in calls))
    over = next(call for call in calls if call.done())
    assert over.code().name == "RESOURCE_EXHAUSTED"
    assert "bytes wait for the command to read" in over.details()
    assert poll(own_server, "deaf").execution.exec_id == "deaf"
    assert shim.memory_info().rss - before < 32 << 20
    for call in calls:
        call.cancel()
    eventually(lambda: write(own_server, "deaf", "later", 0) == (0, 0))


def test_links_end_with_their_executions(own_server: Server) -> None:
    """The connection that is kept for a command's input goes when the command does."""
    server = psutil.Process(own_server.pid)
    before = server.num_fds()
    for number in range(20):
        exec_id = start(own_server, "cat", exec_id=f"cat-{number}", **OPEN).exec_id
        write(own_server, exec_id, "w", 0, b"x")
        write(own_server, exec_id, "w", 1, eof=True)
        ended(own_server, exec_id)
    eventually(lambda: server.num_fds() <= before + 5)
