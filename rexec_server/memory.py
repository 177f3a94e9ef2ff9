"""The C library's memory: quick to have for large messages, and given back when it is no longer needed."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# A look at the memory's size, and what it must have grown by since the last time that freed memory was given back.
LOOK_SECONDS = 2.0
GROWN_BYTES = 16 * 1024 * 1024

_libc = ctypes.CDLL(None)


def keep_for_messages() -> None:
    """Keep what is freed for a while: glibc itself maps and unmaps each message of 256 KiB, at a third of the speed."""
    try:
        _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        _libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    except AttributeError:
        pass  # another C library, with another allocator


async def give_back() -> None:
    """Give freed memory back when the process has grown, and until there is none to give. Goes on for ever.

    Without this, what a thousand large messages needed for a moment is kept for good.
    """
    if not hasattr(_libc, "malloc_trim"):
        return
    least = _resident()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before = _resident()
        if before > least + GROWN_BYTES:
            # In a thread, and without Python's lock: others allocate in arenas of their own meanwhile.
            await asyncio.to_thread(_libc.malloc_trim, 0)
            # Memory that was in use at this moment may be free at the next look: then it is given back too.
            least = _resident() if before - _resident() < GROWN_BYTES // 4 else least
        least = min(least, before)


def _resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
