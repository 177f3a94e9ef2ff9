"""The names of the server's unix sockets, which come back after their removal."""

from __future__ import annotations

import os
from contextlib import suppress

from rexec_server.config import Config


class UnixSocket:
    """A unix socket's name, and a hidden second one: by that the first is made anew when it was removed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._second = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.second")
        with suppress(FileNotFoundError):
            os.unlink(self._second)
        os.link(path, self._second, follow_symlinks=False)

    def restore(self) -> None:
        """Make the name anew where it is gone. OSError."""
        if not os.path.lexists(self._path):
            os.link(self._second, self._path, follow_symlinks=False)

    def release(self) -> None:
        with suppress(OSError):
            os.unlink(self._second)


def keep_names(config: Config) -> list[UnixSocket]:
    """Gives each unix socket that is bound its second name."""
    sockets = []
    for listener in config.listeners:
        with suppress(OSError):  # a file system without hard links: then a removed name stays so
            if listener.address.startswith("unix:"):
                sockets.append(UnixSocket(listener.address.removeprefix("unix:")))
    return sockets
