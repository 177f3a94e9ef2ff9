"""A service manager's ear: the socket of sd_notify(3)."""

from __future__ import annotations

import socket
from pathlib import Path

SECONDS = 120


class Manager:
    """Hears what the programs that it is named to say."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        address = f"@{directory}/notify" if abstract else f"{directory}/notify"
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if abstract else address)
        self._socket.settimeout(SECONDS)

    def next(self) -> dict[str, str]:
        """What is said next: its assignments."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def close(self) -> None:
        self._socket.close()
