"""The gateway beside a server: a process of its own, started by the server and ended with it.

The standard library only: this is what the server imports, and it shall not load a web server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

_log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
STOP_SECONDS = 8.0
# Where the child finds its listening socket.
_LISTEN_FD = 3


class GatewayProcess:
    """Runs `rexec-gateway` on a socket that listens already, and again when it ends unasked.

    The socket is the server's: while one gateway is gone and the next not there yet, connections wait in it.
    """

    def __init__(self, listener: socket.socket, target: str, flags: Sequence[str]) -> None:
        self._listener = listener
        self._arguments = [
            sys.executable, "-P", "-m", "rexec_server.gateway", "--with-parent", "--listen-fd", str(_LISTEN_FD),
            "--target", target, *flags,
        ]  # fmt: skip
        # Never written to: that its other end closes is how the gateway learns that the server is gone.
        self._alive, self._lifeline = os.pipe()
        self._pid = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """OSError when it cannot even be tried: our user may not run this Python, say."""
        self._pid = self._spawn()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends it: streams first, then what is being answered."""
        self._stopping = True
        self._kill(signal.SIGTERM)
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=STOP_SECONDS)
            if late:
                self._kill(signal.SIGKILL)
                await self._task
        os.close(self._lifeline)
        os.close(self._alive)
        self._listener.close()

    async def _run(self) -> None:
        while True:
            if self._pid:
                _, status = await asyncio.to_thread(os.waitpid, self._pid, 0)
                self._pid = 0
                if self._stopping:
                    return
                _log.error("the gateway ended (%s); starting another", os.waitstatus_to_exitcode(status))
            await asyncio.sleep(RESTART_SECONDS)
            if self._stopping:
                return
            try:
                self._pid = self._spawn()
            except OSError as error:
                _log.error("cannot start the gateway: %s; trying again", error.strerror)

    def _spawn(self) -> int:
        """posix_spawn does not fork, and is safe beside gRPC."""
        actions = [
            (os.POSIX_SPAWN_DUP2, self._alive, 0),
            (os.POSIX_SPAWN_DUP2, self._listener.fileno(), _LISTEN_FD),
        ]
        return os.posix_spawn(sys.executable, self._arguments, os.environ, file_actions=actions)

    def _kill(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)
