"""A program beside the server: a process of its own, started by the server and ended with it.

The standard library only: it is what the server imports, and it must not load what only the child needs.
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
# The child's listening sockets: this descriptor, and those after it.
FIRST_FD = 3


class Child:
    """Runs one of our modules on sockets that listen already, and again when it ends unasked.

    The sockets are the server's: while one child is gone and the next not there yet, connections wait in them.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        """Make a child. name: what the log calls it."""
        self._name = name
        self._listeners = list(listeners)
        self._arguments = [sys.executable, "-P", "-m", module, *arguments]
        # Never written to: that its other end closes is how the child learns that the server is gone.
        self._alive, self._lifeline = os.pipe()
        self._pid = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it. OSError when it cannot even be tried: our user may not run this Python, say."""
        self._pid = self._spawn()
        self._task = asyncio.create_task(self._run())

    def refuse(self) -> None:
        """Take no further connections; those that there are go on. The child has to end by itself after that."""
        self._stopping = True
        self._close_listeners()
        self._kill(signal.SIGTERM)

    async def stop(self) -> None:
        """Ends it: it may finish what it is at."""
        self.refuse()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=STOP_SECONDS)
            if late:
                self._kill(signal.SIGKILL)
                await self._task
        os.close(self._lifeline)
        os.close(self._alive)

    async def _run(self) -> None:
        while True:
            if self._pid:
                status = await _ended(self._pid)
                self._pid = 0
                if self._stopping:
                    return
                _log.error("the %s ended (%s); starting another", self._name, os.waitstatus_to_exitcode(status))
            await asyncio.sleep(RESTART_SECONDS)
            if self._stopping:
                return
            try:
                self._pid = self._spawn()
            except OSError as error:
                _log.error("cannot start the %s: %s; trying again", self._name, error.strerror)

    def _spawn(self) -> int:
        """Spawn it with posix_spawn, which does not fork, and is safe beside gRPC."""
        actions = [(os.POSIX_SPAWN_DUP2, self._alive, 0)]
        for number, listener in enumerate(self._listeners, FIRST_FD):
            actions.append((os.POSIX_SPAWN_DUP2, listener.fileno(), number))
        return os.posix_spawn(sys.executable, self._arguments, os.environ, file_actions=actions)

    def _kill(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


async def _ended(pid: int) -> int:
    """Waits for a child of ours, without a thread, and returns its status: the pidfd says that it is there."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return os.waitpid(pid, os.WNOHANG)[1]  # noqa: ASYNC222 (it does not wait)
