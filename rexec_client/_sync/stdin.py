# Generated from rexec_client/_async/stdin.py by scripts/gen_sync_client.py: do not edit.
"""The writing end of an execution's standard input."""

from __future__ import annotations

import secrets
from collections import deque
from typing import NamedTuple

from rexec.v1.execution_service_pb2 import PollRequest, WriteStdinRequest, WriteStdinResponse

from rexec_client._sync import backend
from rexec_client._sync.rpc import Rpc, wait_or_raise
from rexec_client.backoff import Backoff
from rexec_client.errors import CallError, DeadlineError, OutOfRangeError, PreconditionError, StdinClosedError
from rexec_client.pace import Pace
from rexec_client.status import is_unanswered

# Seconds in which one piece is taken, or asked for again: a command may read as slowly as it likes.
PIECE_TIMEOUT = 5.0


class _Piece(NamedTuple):
    """A call in flight. `first`: nothing before it was in flight when it began."""

    request: WriteStdinRequest
    call: backend.WriteCall
    first: bool

    @property
    def end(self) -> int:
        return self.request.offset + len(self.request.data)


class StdinWriter:
    """Writes at an offset that it remembers, in a counter of its own, so that a repeated call doubles nothing.

    Several pieces may be in flight: their offsets order them, and what comes too early is sent again. For one task at a
    time. A server without the feature "writer" has one counter for all who write to an execution.
    """

    def __init__(self, rpc: Rpc, exec_id: str, shared_offset: int) -> None:
        """Make a writer. `shared_offset`: the position of the counter for all."""
        self._rpc = rpc
        self._exec_id = exec_id
        self._writer: str | None = None  # our name; empty in the counter for all; None before the first call
        self._offset = shared_offset
        self._doubtful = 0  # up to here the server may have accepted what we sent, without our having heard of it
        self._begun: deque[_Piece] = deque()
        self._pace = Pace()
        self._unsure = False
        self._ended = False
        self._abandoned = False

    def write(self, data: bytes) -> None:
        """Give the command all of `data`; returns when it has been accepted, however slowly the command reads.

        Raises:
            StdinClosedError: the command has ended, or standard input was closed.
            PreconditionError: others write to it too, so that it is not certain what has arrived.
        """
        if self._unsure:  # a write was cancelled half-way: the server knows how far it got
            self._offset = self._doubtful = self._ask()
        self._unsure = True
        self._transfer(data)
        self._unsure = False

    def close(self) -> None:
        """Give the command end-of-file. Nothing happens when it has it already, or has ended."""
        try:
            if self._unsure:
                self._offset = self._doubtful = self._ask()
            self._transfer(b"", eof=True)
        except StdinClosedError as error:
            if error.command_waits:
                raise

    def abandon(self) -> None:
        """Make a writer in another thread give up at its next step."""
        self._abandoned = True

    def _transfer(self, data: bytes, *, eof: bool = False) -> None:
        rest, backoff = memoryview(data), Backoff(self._rpc.patience)
        if self._writer is None:
            self._take_name()
        try:
            while rest or (eof and not self._ended):
                self._begin(rest, eof)
                rest = rest[self._settle(backoff) :]
        finally:
            self._drop()

    def _begin(self, rest: memoryview, eof: bool) -> None:
        """Send as much of the rest as may be in flight."""
        if self._abandoned:
            raise StdinClosedError("standard input is abandoned", code="FAILED_PRECONDITION")
        sent = sum(len(piece.request.data) for piece in self._begun)
        window = self._pace.window if self._writer else 1
        while not self._begun or (len(self._begun) < window and sent < len(rest)):
            data = bytes(rest[sent : sent + self._pace.size])
            request = WriteStdinRequest(
                exec_id=self._exec_id, offset=self._offset + sent, data=data, eof=eof, writer=self._writer or ""
            )
            call = self._rpc.send(self._rpc.stub.WriteStdin, request, timeout=PIECE_TIMEOUT)
            self._begun.append(_Piece(request, call, first=not self._begun))
            self._pace.begin()
            sent += len(data)

    def _settle(self, backoff: Backoff) -> int:
        """Wait for the oldest piece, and return how many bytes more are accepted. A failure drops all others."""
        piece = self._begun[0]
        try:
            reply = self._rpc.answer(piece.call, piece.request)
        except DeadlineError as error:  # the command reads slowly, or the server is slow: it is asked
            self._drop()
            told = error.metadata.get("bytes_written", "")
            return self._reach(int(told) if told.isdigit() else self._ask())
        except OutOfRangeError:
            if piece.first:
                raise
            self._drop()  # it came before its predecessor
            return 0
        except PreconditionError as error:
            self._start_again(error)
            return 0
        except CallError as error:
            if not (is_unanswered(error) or error.reason == "RATE_LIMITED"):
                raise
            self._drop()
            wait_or_raise(backoff, error)
            backend.sleep(error.retry_after or 0)
            return 0
        accepted = self._accepted(piece, reply)
        self._begun.popleft()
        self._pace.settle()
        backoff.progress()
        self._ended = piece.request.eof
        return accepted

    def _accepted(self, piece: _Piece, reply: WriteStdinResponse) -> int:
        """Return how many bytes more are accepted, after an answer. What we do not know to be ours was another's."""
        known = max(0, self._doubtful - piece.request.offset)
        written, most = reply.stdin.bytes_written, max(self._doubtful, self._begun[-1].end)
        if reply.skipped_bytes > known or written < piece.end:
            raise self._mixed_up()
        if written <= most:  # an earlier attempt may have brought more than this one
            reached = piece.end if len(self._begun) > 1 else written
            accepted, self._offset = reached - self._offset, reached
            return accepted
        if self._writer or self._doubtful > piece.end:
            raise self._mixed_up()
        self._offset = written  # another goes on after us in the counter for all
        return len(piece.request.data)

    def _mixed_up(self) -> PreconditionError:
        text = "another writes to this execution in the same counter: it is not certain which bytes have arrived"
        return PreconditionError(text, code="FAILED_PRECONDITION", reason="STDIN_SKIPPED")

    def _reach(self, written: int) -> int:
        """Go to the position that the server tells. Returns how many bytes more that is."""
        if written > max(self._offset, self._doubtful):
            raise self._mixed_up()
        more, self._offset = max(0, written - self._offset), max(self._offset, written)
        return more

    def _drop(self) -> None:
        """Forget all that is in flight: it may or may not be accepted."""
        for piece in self._begun:
            self._doubtful = max(self._doubtful, piece.end)
            piece.call.cancel()
        if self._begun:
            self._begun.clear()
            self._pace.fail()

    def _start_again(self, error: PreconditionError) -> None:
        """Go on in another counter, where it is certain how much of our input has arrived."""
        certain = self._doubtful <= self._offset
        self._drop()
        if error.reason == "WRITER_NOT_SUPPORTED":  # an execution from before the server's upgrade
            self._writer = ""
            self._offset = self._doubtful = self._ask()
        elif error.reason == "WRITER_FORGOTTEN" and certain:
            self._writer, self._offset, self._doubtful = _new_name(), 0, 0
        elif error.reason == "WRITER_FORGOTTEN":
            raise error
        else:
            raise StdinClosedError(str(error), code=error.code, reason=error.reason, metadata=error.metadata) from error

    def _take_name(self) -> None:
        """Take a name of our own: then no other writer can move our counter."""
        if "writer" in self._rpc.features():
            self._writer, self._offset = _new_name(), 0
        else:
            self._writer = ""

    def _ask(self) -> int:
        """Ask for the position of our counter."""
        if self._writer:
            question = WriteStdinRequest(exec_id=self._exec_id, writer=self._writer)
            try:
                stdin = (self._rpc.call_until_answered(self._rpc.stub.WriteStdin, question)).stdin
            except PreconditionError as error:
                raise StdinClosedError(str(error), code=error.code, reason=error.reason) from error
        else:
            request = PollRequest(exec_id=self._exec_id, offset=0, max_bytes=1)
            stdin = (self._rpc.call_until_answered(self._rpc.stub.Poll, request)).execution.stdin
        if not stdin.open:
            raise StdinClosedError("standard input is closed", code="FAILED_PRECONDITION")
        return stdin.bytes_written


def _new_name() -> str:
    return secrets.token_hex(16)
