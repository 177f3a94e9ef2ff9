"""A journald for tests: it takes datagrams, and knows what they say."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path


class FakeJournald:
    """Takes what systemd's would, as its native protocol says; refuses a file that could still change."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)

    def next(self) -> dict[str, str]:
        """The fields of the next entry."""
        data, fds, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
        if fds:
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
            assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return _parse(data)

    def close(self) -> None:
        self._socket.close()


def _parse(data: bytes) -> dict[str, str]:
    fields = {}
    while data:
        head, _, rest = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if equals:
            data = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields
