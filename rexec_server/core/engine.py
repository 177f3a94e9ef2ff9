"""What an engine does, seen from core: it starts, signals and ends. Output and exit always come through the spool."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from rexec_server.core.launch import Launch
from rexec_server.core.spool import Reason, StartError


class StdinPiece(NamedTuple):
    """A write of standard input; `writer` is as `writer_key` makes it."""

    offset: int
    data: bytes
    eof: bool
    writer: bytes = b""


class StdinProgress(NamedTuple):
    """The position of a writer of standard input after a write.

    `error` is None, "closed", "beyond", "uncertain", "forgotten" (the writer), or "nameless": its supervisor is of an
    earlier version, and knows no writers by name. `skipped` is how much of the data had been accepted before.
    """

    bytes_written: int
    open: bool
    error: str | None
    skipped: int = 0


class Engine(Protocol):
    """Where commands are run. `name` is an execution's name in the spool.

    Unavailable: the engine cannot be reached, and what was asked for was not done.
    """

    def directory(self, name: str) -> str:
        """The spool directory of an execution; it may not exist yet, or any more."""

    def names(self) -> list[str]:
        """Return the names of all executions that have a directory."""

    async def ready(self) -> None:
        """Returns when a start can be asked for; raises Unavailable if that is not to be soon."""

    @property
    def instance(self) -> str:
        """The name of the runner that a start would be asked of now; empty when it has none."""

    async def start(self, name: str, launch: Launch, reserved: dict[str, Any]) -> StartError | None:
        """Returns when the command runs, or why it certainly was not started.

        reserved: kept beside the execution, for a server whose index does not know it.
        Unavailable when that is not known; then `settle` makes it certain.
        """

    async def settle(self, name: str, why: str, boot_id: str, instance: str, produced: tuple[int, int]) -> None:
        """Sees to an execution that shows no sign of life: afterwards it is supervised, or its end is on record.

        Without a directory it is ended and LOST, unless the runner of that instance says that its start never came:
        then it will never be started, for the reason `why`. boot_id: in which it was reserved.
        produced: bytes of standard output and standard error that callers have been told of.
        """

    async def supervised(self) -> set[str]:
        """Return the names of the executions that the runner sees to their end. Unavailable."""

    async def signal(self, name: str, number: int, group: bool) -> bool:
        """Delivers a signal. False when the command has ended."""

    async def end(self, name: str, reason: Reason, grace: float | None) -> None:
        """Begins to end the command: TERM, `grace` seconds (None: as it was started with), KILL."""

    async def write_stdin(self, name: str, piece: StdinPiece) -> StdinProgress:
        """Writes until all is in; it may be cancelled, and then asked with no data how far it got."""

    async def attend(self, name: str, *, holder: bool = False) -> None:
        """Say that a reader follows now, for a command with an unattended_timeout.

        holder: one who holds output, for a command that waits.
        """

    async def hold(self, name: str, floor: int) -> None:
        """Drop nothing from this offset on any more, with OVERFLOW_WAIT; what is before it may be dropped."""

    async def remove(self, name: str) -> None:
        """Removes the spool directory of an ended execution."""

    async def answers(self) -> bool:
        """Whether it could be asked for something now. May take as long as it likes; it starts nothing."""

    def features(self) -> list[str]:
        """What this engine can do, as GetServerInfo names it."""
