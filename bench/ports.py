"""Ports that are free, and servers that are ready."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, process)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], within: float = 30) -> None:
    """Until `ready()`; RuntimeError when the process ends before, or takes longer."""
    deadline = time.monotonic() + within
    try:
        while not ready():
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} was not ready within {within:g} s")
            time.sleep(0.005)
    except BaseException:  # whoever waits gives up, and will not end it
        process.kill()
        process.wait()
        raise


def receive_all(port: int, piece: int, feed: Callable[[bytes], None]) -> None:
    """Everything that a server on loopback writes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while data := sock.recv(piece):
            feed(data)
