"""Standard input as it comes, without a thread: a reader that is still waiting can simply be dropped."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import select
import stat
import termios

from rexec_client.cli.readiness import readable

# At most this much is asked for at once.
PIECE = 1024 * 1024
# And held while the command does not read; a pipe gives 64 KiB at a time, which alone would be small writes.
AHEAD = 16 * 1024 * 1024


class Source:
    """A descriptor to be read while the event loop goes on."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def is_terminal(self) -> bool:
        return os.isatty(self._fd)

    async def read(self) -> bytes:
        """The next bytes; empty at end-of-file."""
        while True:
            await readable(self._fd)
            try:
                return os.read(self._fd, PIECE)
            except BlockingIOError:  # someone who shares it made it non-blocking, and read first
                continue
            except OSError:  # the terminal hung up
                return b""

    async def read_all(self, most: int) -> bytes | None:
        """Everything to the end; None when it is more than `most` bytes."""
        data = bytearray()
        while len(data) <= most:
            piece = await self.read()
            if not piece:
                return bytes(data)
            data += piece
        return None

    async def is_at_end(self) -> bool:
        """True when the end is here already. Takes what there is instead: for whoever has no use for it."""
        ready, _, _ = select.select([self._fd], [], [], 0)
        return bool(ready) and not await self.read()


class ReadAhead:
    """A source that is read while what it gave before is on its way."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._held = bytearray()
        self._ended = False
        self._changed = asyncio.Event()

    async def fill(self) -> None:
        """Read to the end, but never hold more than so much. To be run beside `take`."""
        while not self._ended:
            data = await self._source.read()
            self._ended = not data
            self._held += data
            self._changed.set()
            while len(self._held) >= AHEAD:
                self._changed.clear()
                await self._changed.wait()

    async def take(self) -> bytes:
        """Return all that was read meanwhile; empty at end-of-file."""
        while not self._held and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        data, self._held = bytes(self._held), bytearray()
        self._changed.set()
        return data


def has_input(fd: int = 0) -> bool:
    """Return True when bytes meant for us certainly are on standard input. Takes none, and never waits.

    What the parent has as its own standard input is the parent's: the rest of a loop's list, or of a script.
    """
    try:
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            some = info.st_size > os.lseek(fd, 0, os.SEEK_CUR)
        else:
            some = (stat.S_ISFIFO(info.st_mode) or stat.S_ISSOCK(info.st_mode)) and _waiting_bytes(fd) > 0
    except OSError:
        return False
    return some and not _is_parents(info)


def _waiting_bytes(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def _is_parents(info: os.stat_result) -> bool:
    """Return True when the parent's standard input is the same; False also if that cannot be seen."""
    try:
        parents = os.stat(f"/proc/{os.getppid()}/fd/0")
    except OSError:
        return False
    return (parents.st_dev, parents.st_ino) == (info.st_dev, info.st_ino)


def open_source(fd: int = 0) -> Source | None:
    """Standard input, or None when there is none to forward: closed, /dev/null, or a terminal that is not ours now."""
    try:
        info = os.fstat(fd)
    except OSError:
        return None
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == os.stat(os.devnull).st_rdev:
        return None
    # Reading the terminal from the background would stop this process: `rexec run … &` must go on.
    if os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp():
        return None
    return Source(fd)


def small_file(limit: int, fd: int = 0) -> bytes | None:
    """All of standard input when it is a file with at most `limit` bytes left: it can go with the request."""
    try:
        info, start = os.fstat(fd), os.lseek(fd, 0, os.SEEK_CUR)
        if not stat.S_ISREG(info.st_mode) or info.st_size - start > limit:
            return None
    except OSError:
        return None
    data = bytearray()
    # Files of /proc have no size, and give a page at a time.
    while len(data) <= limit and (piece := os.read(fd, limit + 1 - len(data))):
        data += piece
    if len(data) <= limit:
        return bytes(data)
    os.lseek(fd, start, os.SEEK_SET)
    return None
