"""Becoming the installed version at a moment at which no request is half done."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

from rexec_server.runner.estate import Estate
from rexec_server.runner.loop import Loop
from rexec_server.runner.successor import Successor, Unfit
from rexec_server.runner.wire import Connection, Message

_log = logging.getLogger("rexec.runner")

# How long requests that are under way get to finish; if they do not, all goes on as before.
QUIET_SECONDS = 5.0
_LOOK_SECONDS = 0.005


class Upgrade:
    """Finds the successor, pauses, waits until no request is half done (`quiet`), and execs. Or stays, and says why."""

    def __init__(self, loop: Loop, estate: Estate, quiet: Callable[[], bool]) -> None:
        self._loop = loop
        self._estate = estate
        self._quiet = quiet
        self._owed: list[tuple[Connection, int]] = []  # who asked for it, and the request's number
        self._successor: Successor | None = None
        self._until = 0.0

    def listen(self) -> None:
        """From here on SIGHUP begins it; in a terminal it ends us, as that one is closed."""
        if os.isatty(0):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        else:
            self._loop.on_signal(signal.SIGHUP, self.begin)

    def ask(self, connection: Connection, request: Message) -> None:
        """Begins it for a server, which our successor answers, or we if we stay."""
        self._owed.append((connection, request["number"]))
        self.begin(request.get("python"))

    def begin(self, python: str | None = None) -> None:
        """python: of the installation whose runner it shall be; None: the one that this one was started from."""
        if self._successor is not None:
            return
        try:
            self._successor = Successor.find(self._estate.standing.started_in, python)
        except Unfit as error:
            return self._stay(str(error))
        self._until = time.monotonic() + QUIET_SECONDS
        self._estate.peers.pause()
        self._loop.call_later(0, lambda: self._go_when_quiet(self._successor))

    def _go_when_quiet(self, successor: Successor | None) -> None:
        assert successor is not None
        if not self._quiet():
            if time.monotonic() > self._until:
                return self._stay(f"a request took longer than {QUIET_SECONDS:g} s; try again")
            self._loop.call_later(_LOOK_SECONDS, lambda: self._go_when_quiet(successor))
            return
        _log.info("becomes version %s", successor.version)
        try:
            owed = [(connection.fileno(), number) for connection, number in self._owed if connection.open]
            successor.become(self._estate.leave(owed))
        except OSError as error:
            self._stay(f"{successor.program}: {error.strerror}")

    def _stay(self, why: str) -> None:
        self._successor = None
        self._estate.peers.resume()
        _log.warning("stays as it is: %s", why)
        owed, self._owed = self._owed, []
        for connection, number in owed:
            connection.send({"number": number, "error": why})
