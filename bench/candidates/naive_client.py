"""The naive server as a program, and the client that people write for it: it polls."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.lab import end_all
from bench.ports import free_port, wait_for_port

# As many as the gateway answers with, beside those of its event streams.
THREADS = 64
# Between two polls, in seconds. People take more, and wait longer for an end.
PAUSE = 0.001


class NaiveServer:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.candidates.naive", str(self.port), str(THREADS)], stderr=log
            )
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        end_all(self._process)


class Json:
    """A connection on which JSON is posted."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """The answer. RuntimeError unless it is 200."""
        data = b"" if body is None else json.dumps(body).encode()
        try:
            response = self._send(path, data)
        except ConnectionError:  # the server hangs up on who has said nothing for some seconds
            self._connection.close()
            response = self._send(path, data)
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}: {content[:100]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def close(self) -> None:
        self._connection.close()

    def _send(self, path: str, data: bytes) -> http.client.HTTPResponse:
        self._connection.request("POST", path, data, {"Content-Type": "application/json"} if data else {})
        return self._connection.getresponse()


@contextmanager
def connection(port: int) -> Iterator[Json]:
    json_connection = Json(port)
    try:
        yield json_connection
    finally:
        json_connection.close()


def run(server: Json, arguments: Sequence[str], feed: Callable[[bytes], None]) -> int:
    """Runs a command to its end, feeds all of its output, and returns the exit code."""
    key = server.post("/exec", {"cmd": list(arguments)})["id"]
    while True:
        answer = server.post(f"/poll/{key}?lines=1000000000")
        if answer["output"]:
            feed(answer["output"].encode())
        if answer["status"] == "finished":
            return int(answer["exit_code"])
        time.sleep(PAUSE)
