"""This machine: asks the runner to start commands, and their supervisors to signal and end them."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from rexec_server.core import boot
from rexec_server.core.engine import StdinPiece, StdinProgress
from rexec_server.core.errors import Unavailable
from rexec_server.core.launch import Launch
from rexec_server.core.spool import CONTROL, EXIT, RUNNER_SOCKET, SPOOL, STDIN_STATE, Reason, StartError
from rexec_server.core.stdin_writers import written_by
from rexec_server.engines.channel import Channel, connect
from rexec_server.engines.stdin_links import StdinLinks
from rexec_server.runner.wire import Message

_log = logging.getLogger(__name__)

# How long a dead runner or shim may take to be replaced before a caller is told.
PATIENCE_SECONDS = 10.0
# And how long a socket whose name was removed may take to be made anew.
NAME_SECONDS = 1.0
_RETRY_SECONDS = 0.02
# The interval of looks whether a start that is not answered has made its directory.
_LOOK_SECONDS = 0.02
# A runner that is to become our version first looks whether that one starts.
_UPGRADE_SECONDS = 60.0

T = TypeVar("T")


class LocalEngine:
    """The engine `local`.

    start_runner: starts a runner when none answers (the one-user mode), or None when something else does that.
    version: ours, which a runner of ours shall have too.
    """

    def __init__(self, state_dir: str, start_runner: Callable[[], None] | None, version: str) -> None:
        self._state_dir = state_dir
        self._version = version
        self._spool = f"{state_dir}/{SPOOL}"
        self._start_runner = start_runner
        self._boot_id = boot.boot_id()
        self._runner: Channel | None = None
        self._connecting = asyncio.Lock()
        self._info: Message = {}
        self._links = StdinLinks(self.directory)

    def directory(self, name: str) -> str:
        return f"{self._spool}/{name}"

    def names(self) -> list[str]:
        try:
            return [
                entry.name for entry in os.scandir(self._spool) if entry.is_dir() and not entry.name.startswith(".")
            ]
        except FileNotFoundError:
            return []

    @property
    def instance(self) -> str:
        return str(self._info.get("instance", ""))

    async def ready(self) -> None:
        await self._connected()

    async def keep_connected(self) -> None:
        """Replaces a runner as soon as it dies, so that somebody takes over from a shim that dies too."""
        gone = False
        while True:
            with suppress(Unavailable):
                channel = await self._connected()
                if gone:
                    _log.warning("rexec-runner is back", extra={"runner_pid": self._info.get("pid")})
                gone = False
                await channel.closed.wait()
            if not gone:
                _log.warning("rexec-runner is gone; what runs goes on")
            gone = True

    async def answers(self) -> bool:
        runner = self._runner
        if runner is None or not runner.open:
            return False
        with suppress(Unavailable):
            return "pid" in await runner.ask({"op": "info"})
        return False

    async def start(self, name: str, launch: Launch, reserved: dict[str, Any]) -> StartError | None:
        request = {"op": "start", "id": name, "launch": launch.to_json(), "reserved": reserved}
        answer = await self._ask_for_start(request)
        self._info |= {"instance": answer.get("instance", self.instance)}
        return StartError(*answer["start_error"]) if "start_error" in answer else None

    async def _ask_for_start(self, request: Message) -> Message:
        """Asks the next runner when one dies over it: whether it had begun to, its `mkdir` tells the next.

        Unless the directory was there and is gone: then it may have run, and is not started.
        """
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        directory = self.directory(request["id"])
        sent = claimed = False
        while True:
            try:
                runner = await self._connected()
            except Unavailable as error:
                if sent:
                    raise
                return {"start_error": ["ECANCELED", f"it was not started: {error.message}"]}
            sent = True
            try:
                asking = asyncio.create_task(runner.ask(request))
                while not (await asyncio.wait([asking], timeout=_LOOK_SECONDS))[0]:
                    claimed = claimed or os.path.isdir(directory)
                answer = asking.result()
            except Unavailable:
                vanished = claimed and not os.path.isdir(directory)
                if vanished or asyncio.get_running_loop().time() > deadline:
                    raise
            else:
                return _checked(answer)

    async def settle(self, name: str, why: str, boot_id: str, instance: str, produced: tuple[int, int]) -> None:
        await self._connected()
        # A runner that has no instance's name says of all that has no directory that it was never started.
        older_boot = boot_id != self._boot_id or not self.instance
        request = {"op": "abandon", "id": name, "why": why, "older_boot": older_boot, "runner": instance}
        request["produced"] = produced
        await self._ask(request)

    async def supervised(self) -> set[str]:
        return set((await self._ask({"op": "executions"}))["names"])

    async def remove(self, name: str) -> None:
        await self._ask({"op": "remove", "id": name})

    async def signal(self, name: str, number: int, group: bool) -> bool:
        answer = await self._tell(name, {"op": "signal", "signal": number, "group": group})
        return answer is not None and "error" not in answer

    async def end(self, name: str, reason: Reason, grace: float | None) -> None:
        await self._tell(name, {"op": "end", "reason": int(reason), "grace": grace})

    async def attend(self, name: str, *, holder: bool = False) -> None:
        await self._tell(name, {"op": "attend", "holder": holder})

    async def hold(self, name: str, floor: int) -> None:
        await self._tell(name, {"op": "floor", "floor": floor})

    async def write_stdin(self, name: str, piece: StdinPiece) -> StdinProgress:
        before, attempts = self._written(name, piece.writer), 0

        async def attempt() -> StdinProgress:
            nonlocal attempts
            attempts += 1
            return await self._links.write(name, piece)

        progress = await self._insist(name, attempt)
        if progress is None:
            return StdinProgress(0, False, "closed")
        if attempts > 1:  # what our attempt brought in before its supervisor died is not a repeat of the caller's
            progress = progress._replace(skipped=min(len(piece.data), max(0, before - piece.offset)))
        return progress

    def _written(self, name: str, writer: bytes) -> int:
        with suppress(FileNotFoundError), open(f"{self.directory(name)}/{STDIN_STATE}", "rb") as file:
            return written_by(file.read(), writer)
        return 0

    def features(self) -> list[str]:
        """What the runner can do here: `cgroup` and its controllers (`cgroup.memory`, say), and `run_as`."""
        cgroup = ["cgroup"] if self._info.get("cgroup") else []
        controllers = [f"cgroup.{name}" for name in self._info.get("controllers", ())]
        run_as = ["run_as"] if self._info.get("uid") == 0 else []
        return [*cgroup, *controllers, *run_as, *(["overflow_wait"] if self._info.get("overflow_wait") else [])]

    async def close(self) -> None:
        await self._links.close()
        if self._runner:
            await self._runner.close()

    async def _ask(self, request: Message) -> Message:
        """A request to the runner. Unavailable when it did not answer: it may or may not have been done."""
        return _checked(await (await self._connected()).ask(request))

    async def _connected(self) -> Channel:
        async with self._connecting:
            if self._runner is None or not self._runner.open:
                self._runner = await self._connect()
            return self._runner

    async def _connect(self) -> Channel:
        """Connects to the runner, starting one where that is ours to do."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            try:
                channel = await connect(self._state_dir, RUNNER_SOCKET)
                try:
                    async with asyncio.timeout_at(deadline):  # it may be there, and stopped
                        self._info = await channel.ask({"op": "info"})
                    await self._make_same_version(channel)
                except BaseException:  # whoever waits for it may leave, too: then nobody else would close it
                    channel.drop()
                    raise
                return channel
            except (OSError, Unavailable) as error:  # TimeoutError is an OSError
                if self._start_runner:
                    self._start_runner()
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"rexec-runner does not answer in {self._state_dir}: {error}") from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _make_same_version(self, channel: Channel) -> None:
        """A runner that an older server of this user started becomes ours; another's unit is its operator's."""
        if self._info.get("version") == self._version:
            return
        why = "send it SIGHUP when its new version is installed"
        if self._start_runner:
            try:
                async with asyncio.timeout(_UPGRADE_SECONDS):
                    answer = await channel.ask({"op": "upgrade", "python": sys.executable})
            except TimeoutError:
                answer = {"error": "it does not answer"}
            self._info, why = (self._info, answer["error"]) if "error" in answer else (answer, "it stayed so")
        if self._info.get("version") != self._version:
            theirs = self._info.get("version", "of unknown version")
            _log.warning("rexec-runner is %s and this server %s: %s", theirs, self._version, why)

    async def _tell(self, name: str, request: Message) -> Message | None:
        """Send a request to an execution's supervisor; None when it has ended."""

        async def attempt() -> Message:
            channel = await connect(self.directory(name), CONTROL)
            try:
                return await channel.ask(request)
            finally:
                await channel.close()

        return await self._insist(name, attempt)

    async def _insist(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Asks an execution's supervisor; None when it has ended. One that is replaced just now has a successor."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not os.path.exists(f"{self.directory(name)}/{EXIT}"):
            try:
                return await attempt()
            except (OSError, Unavailable) as error:
                if isinstance(error, FileNotFoundError) and os.path.isdir(self.directory(name)):
                    deadline = min(deadline, asyncio.get_running_loop().time() + NAME_SECONDS)
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"the supervisor of execution {name} does not answer: {error}") from error
            await asyncio.sleep(_RETRY_SECONDS)
        return None


def _checked(answer: Message) -> Message:
    """A runner's answer. Unavailable if it says that it could not."""
    if "error" in answer:
        raise Unavailable(f"rexec-runner: {answer['error']}")
    return answer
