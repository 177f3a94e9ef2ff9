"""The same figures for the naive server, where it has any."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import psutil

from tests.load.census import pss
from tests.load.figures import Latency, Row, kilobytes
from tests.waiting import eventually


def measure_naive(commands: int, followers: int, polls: int) -> Sequence[Row]:
    """Starts that many commands, then attaches that many followers to one of them."""
    with _server() as (pid, port):
        _call(port, "POST", "/exec/first")
        before, polls_before = pss(pid), _polls(port, polls)
        for number in range(commands):
            _call(port, "POST", f"/exec/{number}")
        running = sum(child.name() == "sleep" for child in psutil.Process(pid).children(recursive=True))
        with_commands = pss(pid)
        with ExitStack() as stack:
            begun = time.monotonic()
            for _ in range(followers):
                stack.enter_context(_follow(port))
            seconds = time.monotonic() - begun
            with_followers, threads = pss(pid), psutil.Process(pid).num_threads()
            polls_meanwhile = _polls(port, polls)
        return [
            (f"{commands:,} commands", f"{running:,} running"),
            ("memory of each", kilobytes((with_commands - before) / commands)),
            (f"{followers:,} followers", f"attached in {seconds:.1f} s, {threads:,} threads"),
            ("memory of each", kilobytes((with_followers - with_commands) / followers)),
            ("a poll before", str(polls_before)),
            ("a poll meanwhile", str(polls_meanwhile)),
        ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def look() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    return look


@contextmanager
def _server() -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "tests.load.naive_server", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(answers(port), within=60)
        yield process.pid, port
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


def _call(port: int, method: str, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body="sleep 3600")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()


def _polls(port: int, count: int) -> Latency:
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        _call(port, "GET", "/poll/first")
        seconds.append(time.perf_counter() - begun)
    return Latency.of(seconds)


@contextmanager
def _follow(port: int) -> Iterator[None]:
    """Connected, and served as far as the first event."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /follow/first HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        while b"following" not in heard:
            data = connection.recv(4096)
            assert data, heard
            heard += data
        yield
