"""The server that one writes in an afternoon, to be measured beside ours: Flask, Popen, threads.

`python -m tests.load.naive_server PORT`. It keeps output in a list, and loses all of it when it dies.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

app = Flask(__name__)


class Command:
    """One process, a thread that reads it, and its lines."""

    def __init__(self, command: str) -> None:
        self.process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def follow(self) -> Iterator[str]:
        seen = 0
        yield "data: following\n\n"
        while True:
            with self.changed:
                while len(self.lines) == seen:
                    self.changed.wait()
                lines, seen = self.lines[seen:], len(self.lines)
            yield "".join(f"data: {line}\n" for line in lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()


commands: dict[str, Command] = {}


@app.post("/exec/<name>")
def start(name: str) -> dict[str, Any]:
    commands[name] = Command(request.get_data(as_text=True))
    return {"status": "accepted"}


@app.get("/poll/<name>")
def poll(name: str) -> dict[str, Any]:
    command = commands[name]
    return {"status": "finished" if command.process.poll() is not None else "running", "output": command.lines[-3:]}


@app.get("/follow/<name>")
def follow(name: str) -> Response:
    return Response(commands[name].follow(), mimetype="text/event-stream")


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
