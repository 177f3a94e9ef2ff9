"""The examples, run as a reader would run them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
GRPCURL = Path(sys.executable).parent / "grpcurl"
FOLLOW = EXAMPLES / "node" / "follow.js"
NUMBERS = [str(number) for number in range(28, 49)]


def without_node() -> str:
    """Why the Node examples cannot run here; empty when they can."""
    if shutil.which("node") is None or not (EXAMPLES / "node" / "node_modules").is_dir():
        return "no Node.js, or no `npm ci` in examples/node"
    oldest = json.loads((EXAMPLES / "node" / "package.json").read_text())["engines"]["node"].removeprefix(">=")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=50).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    return "" if major and int(major[1]) >= int(oldest) else f"Node.js {version or '?'} is older than {oldest}"


WITHOUT_NODE = without_node()
needs_node = pytest.mark.skipif(bool(WITHOUT_NODE), reason=WITHOUT_NODE)


class Server(Protocol):
    """What these tests need to know of a running server."""

    target: str


class Result(Protocol):
    """What they look at when an example has ended."""

    returncode: int
    stdout: str
    stderr: str


def run(target: str, *arguments: str | Path, **environment: str) -> Result:
    """Run an example against a server."""
    return subprocess.run(
        arguments, env={**os.environ, "REXEC_TARGET": target, **environment}, capture_output=True, text=True, timeout=50
    )


def follow(target: str, *command: str, **environment: str) -> Result:
    """Run a command through the Node example."""
    return run(target, "node", FOLLOW, *command, **environment)


def listed(target: str, caller: str) -> list[dict[str, object]]:
    """List a caller's executions with grpcurl."""
    address = (
        ["-unix", "-authority", "localhost", target.removeprefix("unix:")] if target.startswith("unix:") else [target]
    )
    header = f"authorization: Bearer {caller}"
    answer = run(target, GRPCURL, "-plaintext", "-H", header, *address, "rexec.v1.ExecutionService/List")
    assert answer.returncode == 0, answer.stderr
    executions: list[dict[str, object]] = json.loads(answer.stdout).get("executions", [])
    return executions


def texts(part: str) -> str:
    """Join the output that a reply printed by grpcurl carries."""
    return "".join(json.loads(text) for text in re.findall(r'"text": ("(?:[^"\\]|\\.)*")', part))


def test_count_prints_28_to_48() -> None:
    """The example command prints its numbers, one on a line."""
    assert run("", sys.executable, EXAMPLES / "count.py", "--every", "0").stdout.split() == NUMBERS


def test_count_hands_out_each_line_at_once() -> None:
    """A line is seen when it is printed, although stdout is a pipe and the next one is far off."""
    command = [sys.executable, str(EXAMPLES / "count.py"), "--every", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as count:
        assert count.stdout is not None
        assert count.stdout.readline() == b"28\n"
        count.kill()


def test_count_waits_two_seconds_unless_told() -> None:
    """Whoever types nothing but its name gets a line every two seconds."""
    assert "default: 2.0" in run("", sys.executable, EXAMPLES / "count.py", "--help").stdout


def test_run_py_prints_what_the_command_wrote(server: Server) -> None:
    """The Python client in a few lines gives the command's output."""
    result = run(server.target, sys.executable, EXAMPLES / "run.py")
    assert (result.returncode, result.stderr) == (0, "")
    assert "hi" in result.stdout


def test_grpcurl_needs_nothing_but_the_address(server: Server) -> None:
    """List, describe, start, poll and follow work with grpcurl and no .proto file."""
    result = run(server.target, EXAMPLES / "grpcurl.sh", EVERY="0.05")
    assert result.returncode == 0, result.stderr
    services, description, started, polled, followed, polled_again = re.split(r"^\$ .*$", result.stdout, flags=re.M)[1:]
    assert "rexec.v1.ExecutionService" in services.split()
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(services.split())
    assert "rpc Exec (" in description
    assert '"exec_id": "count-' in started
    assert texts(polled).split()[-1] in NUMBERS
    assert texts(followed).split() == NUMBERS
    assert '"end": {' in followed
    assert '"exit_code": 0' in followed
    assert texts(polled_again).split() == NUMBERS[-3:]
    assert '"eof": true' in polled_again


@needs_node
def test_node_keeps_the_channels_apart_and_exits_as_the_command(server: Server) -> None:
    """Standard output, standard error and exit code come through as the command gave them."""
    result = follow(server.target, "sh", "-c", "printf out; printf err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out", "err")


@needs_node
def test_node_gives_every_line(server: Server) -> None:
    """More output than fits into one message arrives whole and in order."""
    result = follow(server.target, "seq", "1", "300000")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 300001))


@needs_node
def test_node_gives_more_than_the_server_keeps(server: Server) -> None:
    """The command waits until its output was written out: nothing of it is dropped."""
    result = follow(server.target, "sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "x" * 100_000_000


@needs_node
def test_node_tells_a_signal_as_a_shell_does(server: Server) -> None:
    """A command that a signal ended gives 128 and the signal's number."""
    assert follow(server.target, "sh", "-c", "kill -9 $$").returncode == 128 + 9


@needs_node
def test_node_says_why_a_command_did_not_start(server: Server) -> None:
    """A program that does not exist is told by name of the error, with a shell's exit code."""
    result = follow(server.target, "/no/such/program")
    assert result.returncode == 127
    assert "ENOENT" in result.stderr


@needs_node
def test_node_without_a_command_says_how_it_is_used() -> None:
    """Without a command it says how it is used."""
    result = follow("127.0.0.1:1")
    assert result.returncode == 255
    assert "usage" in result.stderr


@needs_node
def test_node_lives_through_heartbeats(server: Server) -> None:
    """Signs of life on a silent stream are neither output nor an end."""
    result = follow(server.target, "sh", "-c", "sleep 2.5; echo late", REXEC_HEARTBEAT="1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "late\n", "")


@needs_node
def test_node_calls_under_the_callers_name(server: Server) -> None:
    """What REXEC_CALLER starts is that caller's, and nobody else sees it."""
    caller, other = f"alice-{uuid.uuid4().hex}", f"bob-{uuid.uuid4().hex}"
    assert follow(server.target, "true", REXEC_CALLER=caller).returncode == 0
    assert [execution["caller"] for execution in listed(server.target, caller)] == [caller]
    assert listed(server.target, other) == []


@needs_node
def test_node_resumes_a_broken_stream(cut: CuttingProxy) -> None:
    """A connection that breaks in the middle of the output costs not a byte, and doubles none."""
    result = follow(cut.target, "seq", "1", "300000")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 300001))
    assert cut.connections >= 2


class CuttingProxy:
    """Passes bytes between clients and a server; breaks the first connection after so many bytes from the server."""

    def __init__(self, target: str, after: int) -> None:
        self.connections = 0
        self._server, self._after = target, after
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _connect(self) -> socket.socket:
        if self._server.startswith("unix:"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server.removeprefix("unix:"))
            return server
        host, _, port = self._server.rpartition(":")
        return socket.create_connection((host, int(port)))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = self._connect()
            self._open += [client, server]
            self.connections += 1
            left = self._after if self.connections == 1 else sys.maxsize
            self._start(self._pass, client, server, sys.maxsize)
            self._start(self._pass, server, client, left)

    def _pass(self, source: socket.socket, sink: socket.socket, left: int) -> None:
        try:
            while left > 0 and (data := source.recv(min(left, 65536))):
                sink.sendall(data)
                left -= len(data)
        except OSError:
            pass  # the other direction ended it
        for end in (source, sink):
            hang_up(end)

    def close(self) -> None:
        for end in (self._listener, *self._open):
            hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._open):
            end.close()


def hang_up(end: socket.socket) -> None:
    """Break a connection for both sides, whoever is reading or writing; once more does nothing."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cut(server: Server) -> Iterator[CuttingProxy]:
    """A way to the server that breaks once, after some output has passed."""
    proxy = CuttingProxy(server.target, after=300_000)
    yield proxy
    proxy.close()
