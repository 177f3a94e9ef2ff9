"""Output to descriptors as raw bytes, without blocking the event loop: Ctrl-C works while a pager stands still."""

from __future__ import annotations

import os
import select
import stat

from rexec_client.cli.readiness import writable

# A pipe that is writable takes this much without blocking (POSIX: PIPE_BUF).
STEP = select.PIPE_BUF
FILE_STEP = 1 << 20


class Sink:
    """A descriptor to be written while the event loop goes on. It is not made non-blocking: others share it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # A file takes any amount without blocking for long.
        self._step = FILE_STEP if stat.S_ISREG(os.fstat(fd).st_mode) else STEP
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises BrokenPipeError when nobody reads, OSError as the system has it."""
        view = memoryview(data)
        while view:
            if not self._poll.poll(0):
                await writable(self._fd)
            try:
                view = view[os.write(self._fd, view[: self._step]) :]
            except BlockingIOError:  # someone who shares it made it non-blocking
                await writable(self._fd)
