"""A start that another runner had begun: the execution is STARTING for a while after the engine has answered."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from rexec_server.core.command import Command, Defaults
from rexec_server.core.execution import Key, State
from rexec_server.core.executions import Bounds, Executions
from rexec_server.core.grant import UNRESTRICTED
from rexec_server.core.index import Index
from rexec_server.core.journal import NoJournal
from rexec_server.core.launch import Launch
from rexec_server.core.observer import Observer
from rexec_server.core.origin import Origin
from rexec_server.core.spool import START, StartError, StartRecord
from rexec_server.core.waker import Waker

UNATTENDED_SECONDS = 0.4


class LateEngine:
    """Says that it is done when the directory is there; the shim writes its start record later."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.attended = asyncio.Event()

    def directory(self, name: str) -> str:
        return str(self._spool / name)

    instance = "one"

    async def ready(self) -> None:
        pass

    async def start(self, name: str, launch: Launch, reserved: dict[str, Any]) -> StartError | None:
        (self._spool / name).mkdir()
        asyncio.get_running_loop().call_later(0.2, self._write_start, name)
        return None

    async def attend(self, name: str) -> None:
        self.attended.set()

    def _write_start(self, name: str) -> None:
        record = StartRecord(1, 1, 1, 1, "boot", 1, {"unattended_timeout": UNATTENDED_SECONDS})
        draft = self._spool / "draft"
        draft.write_bytes(record.to_bytes())
        os.rename(draft, self._spool / name / START)


def test_exec_waits_for_a_shim_that_comes_late_and_followers_attend(tmp_path: Path) -> None:
    """Who follows it from the beginning attends it, and Exec answers when it runs."""

    async def run() -> State:
        waker, index = Waker(), Index(str(tmp_path / "index"), NoJournal())
        waker.start()
        engine = LateEngine(tmp_path)
        defaults = Defaults(working_directory="/", environment={}, output_bytes=1000, max_timeout=None, retention=60.0)
        executions = Executions(index, engine, waker, NoJournal(), defaults, Bounds(), Observer())  # type: ignore[arg-type]
        command = Command(arguments=("true",), unattended_timeout=UNATTENDED_SECONDS)
        try:
            entry, _ = await executions.exec(Key("me", "a"), command, UNRESTRICTED, Origin())
            state = entry.execution.state
            with executions.attended(entry, "me"), suppress(TimeoutError):
                async with asyncio.timeout(30):
                    await engine.attended.wait()
            assert engine.attended.is_set()
            return state
        finally:
            await executions.stop()
            waker.stop()
            index.close()

    assert asyncio.run(run()) == State.RUNNING
