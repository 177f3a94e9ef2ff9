"""The time from a command's release to its exec, which may be long: a directory or a program may hang."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from rexec_server.core.spool import StartError
from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.wire import encode


class Starting:
    """Calls back, once, when the pipe of a command's process has ended: at its exec or its end, whichever is first.

    `on_decided` gets why it could not be executed, where the process has said so.
    """

    def __init__(self, loop: Loop, failure: int, on_decided: Callable[[StartError | None], None]) -> None:
        self._loop = loop
        self._failure = failure
        self._on_decided = on_decided
        self._said = b""
        os.set_blocking(failure, False)
        loop.watch(failure, READ, lambda _: self._read())

    def _read(self) -> None:
        try:
            while piece := os.read(self._failure, 4096):
                self._said += piece
        except BlockingIOError:
            return
        self._loop.unwatch(self._failure)
        os.close(self._failure)
        self._on_decided(StartError(*json.loads(self._said)["start_error"]) if self._said else None)


class Report:
    """Tells the runner, once, what became of the start."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self, message: dict[str, object]) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, encode(message))
        except OSError:
            pass  # the runner died, or waits no longer; the spool says it too
        os.close(self._fd)
        self._fd = -1
