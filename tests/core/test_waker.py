"""Who waits for a file is woken, whatever goes wrong with others."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from rexec_server.core.waker import Waker


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), KeyError("damaged")])
def test_a_look_that_fails_is_repeated_and_stops_no_other(tmp_path: Path, error: Exception) -> None:
    """Without a descriptor, or of a damaged record: at each check it is called again, and so are those behind it."""
    calls = {"fails": 0, "works": 0}

    async def watch() -> None:
        waker, both = Waker(), asyncio.Event()

        def note(name: str) -> None:
            calls[name] += 1
            if min(calls.values()) >= 2:
                both.set()
            if name == "fails":
                raise error

        for name in calls:
            (tmp_path / name).touch()
            waker.on_write(str(tmp_path / name), lambda name=name: note(name))
        waker.start()
        (tmp_path / "fails").write_text("x")
        try:
            async with asyncio.timeout(30):
                await both.wait()
        finally:
            waker.stop()

    asyncio.run(watch())
