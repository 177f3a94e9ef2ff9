# Generated from rexec_client/_async/handle.py by scripts/gen_sync_client.py: do not edit.
"""One execution: what `start` and `attach` return."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Collection, Iterator
from typing import Any, Literal, overload

from rexec.v1 import execution_service_pb2 as wire
from rexec.v1.execution_pb2 import Execution

from rexec_client._sync.follow import Follow
from rexec_client._sync.hold import Hold
from rexec_client._sync.output import OutputStream
from rexec_client._sync.rpc import Rpc
from rexec_client._sync.stdin import StdinWriter
from rexec_client.executions import is_ended, returncode
from rexec_client.lines import LONGEST_LINE, ChannelLines
from rexec_client.output import Channel, Gap, OutputChunk, channel_numbers
from rexec_client.polls import PollResult, poll_result
from rexec_client.requests import Seconds, duration, follow_request, seconds, set_start
from rexec_client.tally import Tally


class ExecutionHandle:
    """An execution to watch, write to and end. Dropping it never touches the command.

    Attributes:
        exec_id: its id: with it any client of the same caller can `attach`.
        execution: the newest state that an answer told; ask for a newer one with `poll` or `wait`.
        already_existed: True when this id with this request had been accepted before.
        asked_again: True when an answer to the start was lost, and `already_existed` may be about this very start.
    """

    def __init__(
        self,
        rpc: Rpc,
        execution: Execution,
        *,
        owner: str,
        already_existed: bool,
        patience: float,
        waits: bool = False,
    ):
        """Make a handle. `waits`: it was started with on_overflow="wait"."""
        self.exec_id = execution.exec_id
        self.execution = execution
        self.already_existed = already_existed
        self.asked_again = False
        self._rpc = rpc
        self._owner = owner
        self._patience = patience
        self._waits = waits or execution.overflow_waits
        self._stdin = StdinWriter(rpc, self.exec_id, execution.stdin.bytes_written)

    @property
    def returncode(self) -> int | None:
        """From the newest known state, as in subprocess: None while running, minus the number of a signal."""
        return returncode(self.execution)

    def get(self) -> Execution:
        """Return what is known of it now, without output. Raises NotFoundError."""
        self.execution = self._rpc.get(self.exec_id, self._owner)
        return self.execution

    def acknowledge(self, offset: int, *, holder: str, release: bool = False) -> int:
        """Say how far a holder is: what is before `offset` is used up and may be dropped. `output` does this by itself.

        Args:
            holder: the name that `poll` or `output` was called with.
            release: the holder leaves for good; without another one the command no longer waits.

        Returns:
            The offset from which on nothing is dropped.

        Raises:
            PreconditionError: it was not started with on_overflow="wait".
            OutOfRangeError: the offset is beyond the end.
        """
        request = wire.AcknowledgeRequest(exec_id=self.exec_id, holder=holder, offset=offset, release=release)
        return (self._rpc.call(self._rpc.stub.Acknowledge, request)).held_offset

    def poll(
        self,
        *,
        since: int | None = None,
        tail_lines: int | None = None,
        tail_bytes: int | None = None,
        max_bytes: int = 0,
        wait: Seconds | None = None,
        channels: Collection[Channel] = (),
        holder: str = "",
    ) -> PollResult:
        """Return its state, and output. Never consumes: the same question gives the same bytes while they are kept.

        Args:
            since: read from this offset. Without it and without a tail: the newest lines, as many as the server is
                set to.
            max_bytes: at most this much output; 0 is 1 MiB, which is also the most.
            wait: until there is output, or the end, or for this long (at most 60 s); otherwise answer now.
            holder: a name of one's own, for a command that waits for its readers: what is before `since` is used up,
                and nothing from there on is dropped. See `acknowledge`.

        Raises:
            NotFoundError, OutOfRangeError, InvalidRequestError.
            ValueError: a holder, and an execution that waits for none.
        """
        self._check_holder(holder)
        request = wire.PollRequest(
            exec_id=self.exec_id,
            max_bytes=max_bytes,
            wait=duration(wait),
            channels=channel_numbers(channels),
            caller=self._owner,
            holder=holder,
        )
        set_start(request, since, tail_lines, tail_bytes)
        timeout = self._rpc.timeout + seconds(wait)
        reply = self._rpc.call(self._rpc.stub.Poll, request, timeout=timeout)
        self.execution = reply.execution
        return poll_result(reply)

    def wait(self, timeout: Seconds | None = None) -> Execution:
        """Wait for the end, without its output. A command that waits for its readers needs one: see `output`.

        Args:
            timeout: how long to wait here; the command's own timeout is another thing.

        Raises:
            WaitTimeoutError: it has not ended in this time. It goes on.
        """
        until = None if timeout is None else time.monotonic() + seconds(timeout)
        self.poll(since=self.execution.log_end_offset, max_bytes=1)
        if is_ended(self.execution):
            return self.execution
        # From here on, and of the quieter channel: only the end is wanted.
        request = follow_request(
            self.exec_id, since=self.execution.log_end_offset, channels=[Channel.STDERR], owner=self._owner
        )
        follow = Follow(self._rpc, request, patience=self._patience, until=until)
        try:
            while not is_ended(self.execution):
                response = follow.receive()
                if response.HasField("end"):
                    self.execution = response.end
        finally:
            follow.close()
        return self.execution

    @overload
    def output(
        self,
        *,
        since: int = ...,
        tail_lines: int | None = ...,
        tail_bytes: int | None = ...,
        channels: Collection[Channel] = ...,
        gaps: Literal[False] = ...,
        holder: str | None = ...,
    ) -> OutputStream[OutputChunk]: ...

    @overload
    def output(
        self,
        *,
        since: int = ...,
        tail_lines: int | None = ...,
        tail_bytes: int | None = ...,
        channels: Collection[Channel] = ...,
        gaps: Literal[True],
        holder: str | None = ...,
    ) -> OutputStream[OutputChunk | Gap]: ...

    def output(
        self,
        *,
        since: int = 0,
        tail_lines: int | None = None,
        tail_bytes: int | None = None,
        channels: Collection[Channel] = (),
        gaps: bool = False,
        holder: str | None = None,
    ) -> OutputStream[Any]:
        """Yield the output as it appears, from the start or from an offset or a tail, until the end.

        A command that was started with on_overflow="wait" waits for this reader, unless the execution is another
        caller's, or the credential may only read.

        Args:
            since: the offset to begin at.
            tail_lines, tail_bytes: begin at the newest so many instead.
            channels: only these; all by default.
            gaps: give `Gap` objects where output is no longer kept, instead of raising OutputGapError.
            holder: the name under which the command waits for this reader; made up when left out. "" waits for no one.

        Raises:
            ValueError: a holder, and an execution that waits for none.
        """
        self._check_holder(holder)
        may_only_look = holder is None
        if holder is None:
            holder = uuid.uuid4().hex if self._waits and not self._owner else ""
        request = follow_request(
            self.exec_id,
            since=since,
            tail_lines=tail_lines,
            tail_bytes=tail_bytes,
            channels=channels,
            owner=self._owner,
            holder=holder,
        )
        start = None if request.WhichOneof("start") != "offset" else since
        follow = Follow(self._rpc, request, patience=self._patience, may_only_look=may_only_look)
        hold = Hold(self._rpc, self.exec_id, holder, start or 0, self.execution.max_output_bytes) if holder else None
        return OutputStream(follow, Tally(start, channels), self.execution, gaps=gaps, hold=hold)

    @overload
    def lines(
        self, *, encoding: str = ..., errors: str = ..., channels: Collection[Channel] = ..., longest: int = ...
    ) -> Iterator[str]: ...

    @overload
    def lines(
        self, *, encoding: None, errors: str = ..., channels: Collection[Channel] = ..., longest: int = ...
    ) -> Iterator[bytes]: ...

    def lines(
        self,
        *,
        encoding: str | None = "utf-8",
        errors: str = "replace",
        channels: Collection[Channel] = (),
        longest: int = LONGEST_LINE,
    ) -> Iterator[Any]:
        """Yield the output's lines as they appear, with their newlines, as a file gives them.

        Where the command waits for its readers, the part of a line that has come counts as used up.

        Args:
            encoding: of the text; None gives bytes. One in which a newline is the byte 10.
            longest: a line longer than this many bytes comes in parts, of which only the last has a newline.

        Raises:
            OutputGapError: output is no longer kept. Use `output(gaps=True)` to go on after it.
        """
        lines = ChannelLines(encoding, errors, longest)
        with self.output(channels=channels) as stream:
            for chunk in stream:
                for line in lines.feed(chunk):
                    yield line
        for line in lines.flush():
            yield line

    def write(self, data: bytes | str) -> None:
        """Write to its standard input (`start(stdin=True)`); returns when all is accepted. One task at a time.

        Other handles may write to it too: each byte arrives once, in the order in which the calls return.

        Raises:
            StdinClosedError: the command has ended, or its standard input is closed.
            PreconditionError: it is not certain which bytes have arrived.
        """
        self._stdin.write(data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """Give the command end-of-file."""
        self._stdin.close()

    def abandon_stdin(self) -> None:
        """Make a `write` in another thread raise StdinClosedError at its next step."""
        self._stdin.abandon()

    def send_signal(self, number: int, *, leader_only: bool = False) -> None:
        """Send a signal to the command's process group, or to the command alone; returns when it was delivered.

        Never repeated by itself: after UnavailableError it may or may not have been delivered.

        Raises:
            PreconditionError: it has ended.
        """
        scope = wire.SIGNAL_SCOPE_LEADER if leader_only else wire.SIGNAL_SCOPE_GROUP
        request = wire.SignalRequest(exec_id=self.exec_id, signal=number, scope=scope, caller=self._owner)
        self.execution = (self._rpc.call(self._rpc.stub.Signal, request)).execution

    def terminate(self) -> None:
        """Send SIGTERM. `cancel` is surer: it ends everything that the command started."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def cancel(self, *, kill_grace: Seconds | None = None) -> None:
        """End the command and everything it started: TERM, `kill_grace`, KILL. Returns after TERM; see `wait`."""
        request = wire.CancelRequest(exec_id=self.exec_id, kill_grace=duration(kill_grace), caller=self._owner)
        self.execution = (self._rpc.call(self._rpc.stub.Cancel, request)).execution

    def _check_holder(self, holder: str | None) -> None:
        """Refuse a holder on an older server, which would take the name and hold nothing."""
        if holder and not (self._waits or self.execution.overflow_waits):
            raise ValueError(f"holder={holder!r}: {self.exec_id} was not started with on_overflow='wait'")
