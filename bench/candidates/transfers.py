"""How each candidate brings a command's output to its client. Each `open` gives a transfer of the whole output."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rexec.v1 import execution_service_pb2 as api

from bench.candidates import asyncssh_client, naive_client, paramiko_client, rexec, server_sent_events
from bench.candidates.openssh import Master, Sshd
from bench.candidates.production import ProductionServer
from bench.lab import Lab, end
from bench.ports import free_port, receive_all, wait_for_port
from bench.verify import Wrong, expect_status
from rexec_client import Client

# What is read at once, in bytes.
PIECE = 256 * 1024
# All of the output is kept while the log is read.
KEPT = 4 * 10**9

Feed = Callable[[bytes], None]
# Runs the command, feeds all of its output, and raises Wrong unless it ended with 0.
Transfer = Callable[[Feed], None]
Opener = Callable[[Lab, Sequence[str]], AbstractContextManager[Transfer]]


@contextmanager
def library(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """A running command, through Follow; its log is deleted afterwards, so that the disk stays as it was."""
    with rexec.client(lab.get(rexec.RexecServer)) as client:
        yield lambda feed: follow_live(client, command, feed)


@contextmanager
def production(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """The same with TLS on both sides, rules and audit."""
    with lab.get(ProductionServer).client() as client:
        yield lambda feed: follow_live(client, command, feed)


def follow_live(client: Client, command: Sequence[str], feed: Feed) -> None:
    handle = client.start(command, max_output=KEPT)
    with handle.output() as chunks:
        for chunk in chunks:
            feed(chunk.data)
    expect_status(handle.wait(30).exit_code if handle.returncode is None else handle.returncode)
    client.delete(handle.exec_id)


@contextmanager
def library_replay(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """A finished execution, from its first byte."""
    with rexec.client(lab.get(rexec.RexecServer)) as client, _finished(client, command) as exec_id:
        yield lambda feed: follow_finished(client, exec_id, feed)


@contextmanager
def production_replay(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    with lab.get(ProductionServer).client() as client, _finished(client, command) as exec_id:
        yield lambda feed: follow_finished(client, exec_id, feed)


@contextmanager
def raw_replay(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    server = lab.get(rexec.RexecServer)
    with rexec.client(server) as client, rexec.stub(server) as stub, _finished(client, command) as exec_id:
        yield lambda feed: _follow_raw(stub.Follow(api.FollowRequest(exec_id=exec_id)), feed)


@contextmanager
def _finished(client: Client, command: Sequence[str]) -> Iterator[str]:
    handle = client.start(command, max_output=KEPT)
    handle.wait(120)
    yield handle.exec_id
    client.delete(handle.exec_id)


def follow_finished(client: Client, exec_id: str, feed: Feed) -> None:
    handle = client.attach(exec_id)
    with handle.output() as chunks:
        for chunk in chunks:
            feed(chunk.data)
    expect_status(handle.returncode)


@contextmanager
def raw(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    with rexec.stub(lab.get(rexec.RexecServer)) as stub:

        def transfer(feed: Feed) -> None:
            request = api.ExecRequest(arguments=command)
            request.output.max_bytes = KEPT
            exec_id = stub.Exec(request, timeout=30).execution.exec_id
            _follow_raw(stub.Follow(api.FollowRequest(exec_id=exec_id)), feed)
            stub.Delete(api.DeleteRequest(exec_id=exec_id), timeout=30)

        yield transfer


def _follow_raw(responses: Iterator[api.FollowResponse], feed: Feed) -> None:
    for response in responses:
        for chunk in response.output.chunks:
            feed(chunk.data)
        if response.HasField("gap"):
            raise Wrong(f"the output has a gap: {response.gap}")
        if response.HasField("end"):
            expect_status(rexec.exit_code(response.end))
            return
    raise Wrong("the stream ended without an end")


@contextmanager
def command_line(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    yield _program(rexec.cli(lab.get(rexec.RexecServer).target, "run", "--max-output", "4G", "--", *command))


@contextmanager
def ssh(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    yield _program(lab.get(Sshd).command(shlex.join(command)))


@contextmanager
def ssh_gcm(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    yield _program(lab.get(Sshd).command(shlex.join(command), options=("-c", "aes128-gcm@openssh.com")))


@contextmanager
def master(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    with Master(lab.get(Sshd)) as opened:
        yield _program(opened.command(shlex.join(command)))


@contextmanager
def pipe(_: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """The command, through `cat`."""
    yield _program(["sh", "-c", f"{shlex.join(command)} | cat"])


def _program(command: Sequence[str]) -> Transfer:
    """What a program writes to its standard output."""

    def transfer(feed: Feed) -> None:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            while piece := os.read(process.stdout.fileno(), PIECE):
                feed(piece)
            expect_status(process.wait(30))
        finally:
            end(process)

    return transfer


@contextmanager
def asyncssh(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    async def transfer(feed: Feed) -> None:
        async with asyncssh_client.connect(lab.get(Sshd)) as connection:
            process = await connection.create_process(shlex.join(command), encoding=None)
            while piece := await process.stdout.read(PIECE):
                feed(piece)
            expect_status((await process.wait()).exit_status)

    lab.get(Sshd)
    yield lambda feed: asyncio.run(transfer(feed))


@contextmanager
def paramiko(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    with paramiko_client.connect(lab.get(Sshd)) as client:

        def transfer(feed: Feed) -> None:
            _, stdout, stderr = client.exec_command(shlex.join(command))
            while piece := stdout.channel.recv(PIECE):
                feed(piece)
            expect_status(stdout.channel.recv_exit_status())
            stderr.close()
            stdout.close()

        yield transfer


@contextmanager
def naive(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    with naive_client.connection(lab.get(naive_client.NaiveServer).port) as connection:
        yield lambda feed: expect_status(naive_client.run(connection, command, feed))


@contextmanager
def raw_socket(_: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """What a loopback connection carries: a process writes the file to a socket, and we read it."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.candidates.raw_socket", str(port), command[-1]])
    try:
        wait_for_port(port, process)
        yield lambda feed: receive_all(port, PIECE, feed)
    finally:
        end(process)


@contextmanager
def gateway(lab: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """JSON to start it, and Server-Sent Events of its output."""
    port = lab.get(rexec.RexecServer).gateway_port

    def transfer(feed: Feed) -> None:
        with naive_client.connection(port) as json_connection:
            started = json_connection.post("/api/exec/follower", {"cmd": shlex.join(command)})
            if started["status"] != "accepted":
                raise Wrong(f"the gateway says {started}")
        expect_status(server_sent_events.follow(port, "/api/follow/follower", feed))

    yield transfer


@contextmanager
def piped(_: Lab, command: Sequence[str]) -> Iterator[Transfer]:
    """The command, started here."""
    yield _program(command)
