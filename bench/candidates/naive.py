"""The server that people write first, and that rexec replaces: Flask, `Popen`, a thread and a queue.

Nothing is on disk, a poll takes what it gives, a restart forgets everything. Served by cheroot, as the gateway is.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import uuid
from typing import Any

from cheroot.wsgi import Server
from flask import Flask, request

app = Flask(__name__)
jobs: dict[str, tuple[subprocess.Popen[str], queue.SimpleQueue[str], threading.Thread]] = {}


def read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    process.wait()


@app.post("/exec")
def start() -> dict[str, Any]:
    process = subprocess.Popen(request.json["cmd"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    thread = threading.Thread(target=read, args=(process, lines), daemon=True)
    thread.start()
    jobs[key := uuid.uuid4().hex] = (process, lines, thread)
    return {"id": key}


@app.post("/poll/<key>")
def poll(key: str) -> dict[str, Any]:
    """The lines since the last poll, at most the newest `lines` of them."""
    process, lines, thread = jobs[key]
    ended = not thread.is_alive()
    output = [lines.get() for _ in range(lines.qsize())][-int(request.args["lines"]) :]
    state = {"status": "finished", "exit_code": process.returncode} if ended else {"status": "running"}
    return {**state, "output": "".join(output)}


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), app, numthreads=int(sys.argv[2]), request_queue_size=1024)
    server.keep_alive_conn_limit = int(sys.argv[2])  # or it hangs up on the eleventh client
    server.keep_alive_conn_limit = int(sys.argv[2])  # or it hangs up on the eleventh client
    server.start()
