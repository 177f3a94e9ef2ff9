"""Held locks: what a supervisor keeps as long as its execution lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rexec_server.core.spool import LOCK


@asynccontextmanager
async def held(spool: str) -> AsyncIterator[None]:
    """Hold the locks of all executions in a spool."""
    descriptors = [
        os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o640) for path in Path(spool).iterdir() if path.is_dir()
    ]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
