"""The result of a command that ran: the `subprocess.CompletedProcess` of rexec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from rexec_client import errors
from rexec_client.executions import reason_name, returncode
from rexec_client.output import Channel, Gap, OutputChunk

if TYPE_CHECKING:
    from rexec.v1.execution_pb2 import Execution

StrPath = str | os.PathLike[str]
Arguments = Sequence[StrPath] | str


@dataclass(frozen=True, slots=True, repr=False)
class CompletedExecution:
    """A command that ended, with all its output.

    Attributes:
        args: the arguments, or the shell line.
        execution: everything that the server knows of it.
        stdout: standard output, exactly as written.
        stderr: standard error, exactly as written; empty when merged into standard output.
        gaps: ranges of output that are no longer kept; empty unless they were asked for with `gaps=True`.
    """

    args: Arguments
    execution: Execution
    stdout: bytes
    stderr: bytes
    gaps: tuple[Gap, ...] = ()

    def __repr__(self) -> str:
        shown = ("args", "returncode", "stdout", "stderr", "gaps")
        return f"CompletedExecution({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def exec_id(self) -> str:
        return self.execution.exec_id

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the signal's number when a signal ended it; None when no wait status was seen."""
        return returncode(self.execution)

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or None. An exit code of 128+n is an exit code, never folded into this."""
        return self.execution.signal if self.execution.HasField("signal") else None

    @property
    def reason(self) -> str:
        """Who or what ended it, such as "exited", "cancelled", "timed out"."""
        return reason_name(self.execution)

    def check_returncode(self) -> None:
        """Raise CommandFailedError unless the exit code is 0."""
        if self.returncode != 0:
            raise errors.CommandFailedError(self)

    def check_ended_by_itself(self) -> None:
        """Raise when there is no result to return: not started, timed out, or lost."""
        match self.reason:
            case "start failed":
                raise errors.CommandNotStartedError(self)
            case "timed out":
                raise errors.CommandTimeoutError(self)
        if self.returncode is None:
            raise errors.LostError(self)

    def check_output(self) -> None:
        """Raise IncompleteOutputError when there are gaps."""
        if missing := sum(gap.size for gap in self.gaps):
            message = (
                f"{missing} bytes of output are no longer kept: on_overflow='wait' keeps all, a larger max_output= "
                "keeps more; gaps=True accepts it"
            )
            raise errors.IncompleteOutputError(missing, message, self)


class Collected:
    """Output as it comes, sorted by channel, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self._room = most
        self._channels = {channel: BytesIO() for channel in Channel}
        self._gaps: list[Gap] = []

    def add(self, piece: OutputChunk | Gap) -> bool:
        """Take a piece; False when there was no room for all of it."""
        if isinstance(piece, Gap):
            self._gaps.append(piece)
            return True
        self._channels[piece.channel].write(piece.data[: self._room])
        fits = len(piece.data) <= self._room
        self._room = max(self._room - len(piece.data), 0)
        return fits

    def completed(self, args: Arguments, execution: Execution) -> CompletedExecution:
        """Return the result, with what was collected."""
        # getvalue() copies nothing: there may be gigabytes.
        stdout, stderr = (self._channels[channel].getvalue() for channel in (Channel.STDOUT, Channel.STDERR))
        return CompletedExecution(args, execution, stdout, stderr, tuple(self._gaps))
