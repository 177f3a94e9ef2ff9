"""The protocol that a server speaks with a runner and with supervisors, from the server's side."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from rexec_server.runner.wire import HEADER, Message, encode


class Channelled:
    """A blocking connection to a runner or a supervisor."""

    def __init__(self, path: Path) -> None:
        directory = os.open(path.parent, os.O_RDONLY)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        try:
            self._socket.connect(f"/proc/self/fd/{directory}/{path.name}")
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(directory)

    def ask(self, request: Message) -> Message:
        self.send(request)
        return self.receive()

    def send(self, request: Message) -> None:
        self.send_bytes(encode({"number": 1, **request}))

    def send_bytes(self, data: bytes) -> None:
        """Whatever it is, also a part of a request."""
        self._socket.sendall(data)

    def receive(self) -> Message:
        """ConnectionError when the other side is gone."""
        (length,) = HEADER.unpack(self._exactly(HEADER.size))
        answer: Message = json.loads(self._exactly(length))
        return answer

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data
