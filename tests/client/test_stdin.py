"""Handles that write standard input: each with a counter of its own, where the server has such counters."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as wire

from rexec_client import AsyncClient, Client, PreconditionError, StdinClosedError
from tests.client.fakes import FakeServer, Stdin, execution, refuse, reply
from tests.servers import Server


@pytest.fixture
def real(server: Server) -> Iterator[Client]:
    with Client(server.target, caller="alice") as client:
        yield client


def test_two_handles_in_turn(real: Client) -> None:
    """A second handle writes beside the one that started it: all bytes arrive, in the order of the calls."""
    first = real.start(["cat"], stdin=True)
    second = real.attach(first.exec_id)
    words = [f"{number} " for number in range(20)]
    for number, word in enumerate(words):
        (first, second)[number % 2].write(word)
    second.close_stdin()
    first.close_stdin()
    assert b"".join(chunk.data for chunk in first.output()).decode() == "".join(words)
    with pytest.raises(StdinClosedError):
        first.write("more")


def test_more_handles_than_an_execution_remembers(real: Client) -> None:
    """One that was forgotten and knows what has arrived goes on under a new name."""
    first = real.start(["cat"], stdin=True)
    handles = [first, *(real.attach(first.exec_id) for _ in range(24))]
    for _ in range(2):
        for number, handle in enumerate(handles):
            handle.write(f"{number} ")
    first.close_stdin()
    assert b"".join(chunk.data for chunk in first.output()).decode().split() == [str(n) for n in range(25)] * 2


def test_a_cancelled_write_and_what_follows(server: Server) -> None:
    """A write that was broken off has given the command a beginning of its bytes; the next goes on behind that."""

    async def scenario() -> bytes:
        async with AsyncClient(server.target, caller="alice") as client:
            handle = await client.start(["sh", "-c", "read go < /dev/null; sleep 1; cat"], stdin=True)
            writing = asyncio.ensure_future(handle.write(b"a" * 3_000_000))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(writing, 0.5)
            await handle.write(b"b" * 3_000_000)
            await handle.close_stdin()
            async with handle.output() as stream:
                return b"".join([chunk.data async for chunk in stream])

    output = asyncio.run(scenario())
    given = output.count(b"a")
    assert output == b"a" * given + b"b" * 3_000_000
    assert given < 3_000_000


class Writers:
    """Standard inputs by writer, as a server with the feature keeps them."""

    def __init__(self, fake: FakeServer) -> None:
        self.inputs: dict[str, Stdin] = {}
        fake.on("GetServerInfo", reply(wire.GetServerInfoResponse(features=["writer"])))
        fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=pb.StdinStatus(open=True)))))

    def write(self, request: Any, context: Any) -> wire.WriteStdinResponse:
        return self.inputs.setdefault(request.writer, Stdin()).write(request, context)

    def lost(self, request: Any, context: Any) -> None:
        self.write(request, context)
        context.abort(StatusCode.UNAVAILABLE, "lost by the test")


def precondition(reason: str) -> Any:
    return refuse(StatusCode.FAILED_PRECONDITION, reason, error_details_pb2.ErrorInfo(reason=reason, domain="rexec"))


def test_a_lost_answer_doubles_nothing(fake: FakeServer, client: Client) -> None:
    """The repeat has the same name and offset, and what it brings again is not another's."""
    writers = Writers(fake)
    fake.on("WriteStdin", writers.lost, writers.lost, writers.write, writers.lost, writers.write)
    handle = client.start(["cat"], stdin=True)
    handle.write(b"one ")
    handle.write(b"two")
    [(name, stdin)] = writers.inputs.items()
    assert len(name) == 32
    assert stdin.received == b"one two"


def test_every_handle_has_a_name_of_its_own(fake: FakeServer, client: Client) -> None:
    """Random, so that also a handle in another process has another."""
    writers = Writers(fake)
    fake.on("WriteStdin", writers.write)
    for _ in range(3):
        client.start(["cat"], stdin=True).write(b"x")
    assert len(writers.inputs) == 3


def test_a_server_without_writers_is_not_asked_for_them(fake: FakeServer, client: Client) -> None:
    """It would leave the name aside and count in the wrong counter: there all writers share one."""
    stdin = Stdin()
    stdin.received = b"of another "
    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    fake.on("WriteStdin", stdin.write)
    client.start(["cat"], stdin=True).write(b"x")
    assert {request.writer for request in fake.sent(wire.WriteStdinRequest)} == {""}
    assert stdin.received == b"of another x"


def test_an_execution_from_before_the_upgrade(fake: FakeServer, client: Client) -> None:
    """The server knows writers and the execution's supervisor does not: the counter for all is used."""
    Writers(fake)
    stdin = Stdin()
    stdin.received = b"before "
    fake.on("WriteStdin", precondition("WRITER_NOT_SUPPORTED"), stdin.write)
    fake.on("Poll", lambda request, context: wire.PollResponse(execution=execution(stdin=stdin.status())))
    handle = client.start(["cat"], stdin=True)
    handle.write(b"one ")
    handle.write(b"two")
    assert stdin.received == b"before one two"


def test_bytes_that_were_skipped_are_told(fake: FakeServer, client: Client) -> None:
    """Another has written in the counter for all: the write fails, instead of reporting a success that was none."""
    stdin = Stdin()
    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    skipping = wire.WriteStdinResponse(stdin=pb.StdinStatus(bytes_written=3, open=True), skipped_bytes=2)
    fake.on("WriteStdin", reply(skipping))
    with pytest.raises(PreconditionError, match="another writes to this execution") as caught:
        client.start(["cat"], stdin=True).write(b"abc")
    assert caught.value.reason == "STDIN_SKIPPED"


def test_a_repeat_may_be_skipped(fake: FakeServer, client: Client) -> None:
    """After an answer that did not come, as much as was sent may have arrived: that is not another's."""
    stdin = Stdin()

    def lost(request: Any, context: Any) -> None:
        stdin.write(request, context)
        context.abort(StatusCode.UNAVAILABLE, "lost by the test")

    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    skipping = wire.WriteStdinResponse(stdin=pb.StdinStatus(bytes_written=3, open=True), skipped_bytes=3)
    fake.on("WriteStdin", lost, reply(skipping), stdin.write)
    handle = client.start(["cat"], stdin=True)
    handle.write(b"abc")
    handle.write(b"d")
    assert stdin.received == b"abcd"


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_forgotten_writer(fake: FakeServer, client: Client, doubtful: bool) -> None:
    """It takes a new name only when it is certain what has arrived; otherwise the write fails."""
    writers = Writers(fake)
    before = [refuse(StatusCode.UNAVAILABLE)] if doubtful else []
    fake.on("WriteStdin", writers.write, *before, precondition("WRITER_FORGOTTEN"), writers.write)
    handle = client.start(["cat"], stdin=True)
    handle.write(b"one ")
    if doubtful:
        with pytest.raises(PreconditionError) as caught:
            handle.write(b"two")
        assert caught.value.reason == "WRITER_FORGOTTEN"
    else:
        handle.write(b"two")
        assert [stdin.received for stdin in writers.inputs.values()] == [b"one ", b"two"]


def test_input_that_can_go_nowhere_ends_the_run(fake: FakeServer, client: Client) -> None:
    """If nothing more is taken and the command waits all the same, its caller does not wait with it."""
    Writers(fake)
    detail = error_details_pb2.ErrorInfo(reason="STDIN_CLOSED", domain="rexec", metadata={"open": "true"})
    fake.on("WriteStdin", refuse(StatusCode.FAILED_PRECONDITION, "a supervisor died while it wrote", detail))

    def silent(request: Any, context: Any) -> Iterator[wire.FollowResponse]:
        yield wire.FollowResponse(snapshot=execution())
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()

    fake.on("Follow", silent)
    with pytest.raises(StdinClosedError, match="a supervisor died"):
        client.run(["cat"], input=bytes(2 << 20))


def test_much_input_over_restarts_of_the_server(own_server: Server) -> None:
    """Pieces that are in flight when the server is killed are sent again, and each byte arrives once."""
    data = os.urandom(24 << 20)
    with Client(own_server.target, caller="alice", retry_timeout=60) as client:
        script = 'head -c 1000000; read go < "$0"; cat'
        fifo = str(own_server.state_dir.parent / "go")
        os.mkfifo(fifo)
        handle = client.start(["sh", "-c", f"({script}) | sha256sum", fifo], stdin=True)
        writing = threading.Thread(target=lambda: (handle.write(data), handle.close_stdin()))
        writing.start()
        own_server.restart()
        own_server.restart()
        with open(fifo, "w") as go:
            go.write("\n")
        own_server.restart()
        writing.join()
        handle.wait(60)
        output = b"".join(chunk.data for chunk in client.attach(handle.exec_id).output())
    assert output.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_supervisor_dies_under_much_input(own_server: Server) -> None:
    """Input that was on its way arrives once; or the write fails, and says that the command waits."""
    data, failures = os.urandom(24 << 20), []
    with Client(own_server.target, caller="alice", retry_timeout=60) as client:
        handle = client.start(["sha256sum"], stdin=True)
        own_server.caller = "alice"

        def write() -> None:
            try:
                handle.write(data)
                handle.close_stdin()
            except StdinClosedError as error:
                failures.append(error)

        writing = threading.Thread(target=write)
        writing.start()
        os.kill(own_server.shim_pid(handle.exec_id), signal.SIGKILL)
        writing.join()
        if failures:
            assert failures[0].command_waits
            return handle.cancel(kill_grace=0)
        assert handle.wait(60).exit_code == 0
        output = b"".join(chunk.data for chunk in handle.output())
    assert output.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_pieces_that_overtake_each_other(fake: FakeServer, client: Client) -> None:
    """A server that takes them in any order, refuses what comes early and loses answers still gets each byte once."""
    writers, dice, data = Writers(fake), random.Random(1), os.urandom(20 << 20)

    def unreliable(request: Any, context: Any) -> Any:
        if dice.random() < 0.2:
            return writers.lost(request, context)
        return writers.write(request, context)

    fake.on("WriteStdin", unreliable)
    client.start(["cat"], stdin=True).write(data)
    [stdin] = writers.inputs.values()
    assert stdin.received == data
    assert max(len(request.data) for request in fake.sent(wire.WriteStdinRequest)) == 1 << 20
