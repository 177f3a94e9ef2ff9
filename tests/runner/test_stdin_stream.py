"""Much standard input on one connection: raw bytes behind a header, several writes at once, bounded memory."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import pytest

from rexec_server.core.launch import StdinMode
from rexec_server.core.spool import CONTROL
from rexec_server.runner.wire import Message, encode
from tests.runner.channel import Channelled
from tests.runner.harness import Run, Runner
from tests.waiting import eventually

MIB = 1 << 20


class Link(Channelled):
    """A connection on which writes are sent without waiting for one another's answers."""

    def put(self, number: int, offset: int, data: bytes, *, eof: bool = False) -> None:
        header = {"op": "stdin", "number": number, "offset": offset, "eof": eof, "payload": len(data)}
        self.send_bytes(encode(header) + data)

    def take(self, many: int) -> dict[int, Message]:
        """Take the next answers, by their numbers."""
        return {answer["number"]: answer for answer in (self.receive() for _ in range(many))}


@contextmanager
def linked(run: Run) -> Iterator[Link]:
    with closing(Link(run.directory / CONTROL)) as link:
        assert "payload" in link.ask({"op": "info"})["features"]
        yield link


def test_writes_that_overlap_in_time(any_runner: Runner) -> None:
    """They are done in their order, whatever their sizes, and each is answered; what came too early is refused."""
    data = os.urandom(9 * MIB)
    run = any_runner.run("sha256sum", stdin_mode=StdinMode.OPEN)
    cuts = [0, 1, 2 * MIB, 5 * MIB + 7, 9 * MIB]
    with linked(run) as link:
        link.put(99, 5, b"early")
        assert link.take(1)[99]["error"] == "beyond"
        for number, (start, end) in enumerate(itertools.pairwise(cuts)):
            link.put(number, start, data[start:end], eof=end == len(data))
        answers = link.take(len(cuts) - 1)
    assert [answers[number]["bytes_written"] for number in sorted(answers)] == cuts[1:]
    assert run.wait().exit_code == 0
    assert run.output().split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_write_that_is_given_up(runner: Runner) -> None:
    """It is answered with how far it got, at once, and the one behind it has its turn."""
    run = runner.sh("echo on; read go < /dev/null; sleep 300", stdin_mode=StdinMode.OPEN)
    eventually(run.output)
    with linked(run) as link:
        link.put(1, 0, bytes(MIB))
        link.put(2, 0, b"x")
        eventually(lambda: link.ask({"op": "attend", "number": 3})["number"] == 3)
        link.send({"op": "stdin_abandon", "write": 1})
        answers = link.take(2)
        assert answers[1]["error"] == "abandoned"
        assert 0 < answers[1]["bytes_written"] < MIB
        assert (answers[2]["error"], answers[2]["skipped"]) == (None, 1)


def test_a_link_that_breaks_in_mid_payload(runner: Runner) -> None:
    """Nothing of that write is taken, and what was behind it is not waited for."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    with linked(run) as link:
        link.send_bytes(encode({"op": "stdin", "number": 1, "offset": 0, "eof": False, "payload": 10}) + b"12345")
    assert run.stdin(0, b"abc", eof=True)["bytes_written"] == 3
    assert run.wait().exit_code == 0
    assert run.output() == b"abc"


@pytest.mark.parametrize("size", [-1, 9 * MIB, "x"])
def test_a_payload_that_cannot_be(runner: Runner, size: object) -> None:
    """Its sender is disconnected; others are not."""
    run = runner.run("cat", stdin_mode=StdinMode.OPEN)
    with linked(run) as link:
        link.send({"op": "stdin", "offset": 0, "eof": False, "payload": size})
        with pytest.raises(ConnectionError):
            link.receive()
    assert run.stdin(0, b"abc", eof=True)["bytes_written"] == 3


def fifo_size(run: Run) -> int:
    fd = os.open(run.directory / "in", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    finally:
        os.close(fd)


def test_the_fifo_grows_for_a_command_that_reads(runner: Runner) -> None:
    """And only for that: one that does not read is told from one that does by the first 64 KiB."""
    reads = runner.run("sh", "-c", "cat >/dev/null", stdin_mode=StdinMode.OPEN)
    deaf = runner.sh("sleep 300", stdin_mode=StdinMode.OPEN)
    with linked(deaf) as link:
        link.put(1, 0, bytes(MIB))
        before = fifo_size(reads)
        assert before <= 64 * 1024
        for number in range(6):
            reads.stdin(number * MIB, bytes(MIB))
        assert fifo_size(reads) == MIB
        assert fifo_size(deaf) <= 64 * 1024
        shim = psutil.Process(deaf.shim_pid).memory_info().rss
        for number in range(2, 5):
            link.put(number, 0, bytes(MIB))
        assert psutil.Process(deaf.shim_pid).memory_info().rss < shim + 32 * MIB
