"""Names that vanish from a directory under living programs: told by dnotify, which costs nothing while none does.

A shim has no inotify: a user may have 128 instances of it, and there are thousands of shims. A directory's dnotify
(fcntl(2), F_NOTIFY) sends a signal instead.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rexec_server.runner.loop import Loop

# One who removes a directory removes what is in it first, and must not find a name made anew meanwhile.
DELAY_SECONDS = 0.3
# By default it is ignored: it ends no process that does not handle it yet, or not any more.
_SIGNAL = signal.SIGURG
_WHAT = fcntl.DN_DELETE | fcntl.DN_RENAME


class Names:
    """Calls back soon after a name was removed from a directory. Where the kernel has no dnotify, never."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._waiting = False

    def watch(self, directory: int, callback: Callable[[], None]) -> int:
        """Watches an open directory. Returns a handle for `forget`. OSError when no descriptor is left."""
        # Opened anew: who is signalled goes with the open file, and a forked process shares the one that we have.
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        if not self._callbacks:
            self._loop.on_signal(_SIGNAL, self._notice)
        self._callbacks[fd] = callback
        self._arm(fd)
        return fd

    def forget(self, handle: int) -> None:
        if self._callbacks.pop(handle, None) is not None:
            os.close(handle)

    def _arm(self, fd: int) -> None:
        with suppress(OSError):  # a kernel without it
            fcntl.fcntl(fd, fcntl.F_SETSIG, _SIGNAL)
            fcntl.fcntl(fd, fcntl.F_NOTIFY, _WHAT)

    def _notice(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.call_later(DELAY_SECONDS, self._look)

    def _look(self) -> None:
        self._waiting = False
        for fd, callback in list(self._callbacks.items()):
            if fd in self._callbacks:
                self._arm(fd)  # before looking, so that nothing is missed
                callback()
