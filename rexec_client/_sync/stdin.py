# Generated from rexec_client/_async/stdin.py by scripts/gen_sync_client.py: do not edit.
"""The writing end of an execution's standard input."""

from __future__ import annotations

import contextlib

from rexec.v1.execution_service_pb2 import PollRequest, WriteStdinRequest

from rexec_client._sync.rpc import Rpc, wait_or_raise
from rexec_client.backoff import Backoff
from rexec_client.errors import CallError, DeadlineError, PreconditionError, StdinClosedError
from rexec_client.status import is_unanswered

# Bytes in one call: large enough to be cheap, small enough to be sent again.
PIECE = 256 * 1024

# Seconds in which one piece is taken, or asked for again: a command may read as slowly as it likes.
PIECE_TIMEOUT = 5.0


class StdinWriter:
    """Writes at an offset that it remembers, so that a repeated call doubles nothing. For one writer at a time."""

    def __init__(self, rpc: Rpc, exec_id: str, offset: int) -> None:
        self.offset = offset
        self._rpc = rpc
        self._exec_id = exec_id
        self._unsure = False
        self._abandoned = False

    def write(self, data: bytes) -> None:
        """Give the command all of `data`; returns when it has been accepted, however slowly the command reads.

        Raises:
            StdinClosedError: the command has ended, or standard input was closed.
        """
        if self._unsure:  # a write was cancelled half-way: the server knows how far it got
            self._ask_offset()
        view, backoff = memoryview(data), Backoff(self._rpc.patience)
        self._unsure = True
        while view:
            start = self.offset
            self._send(bytes(view[:PIECE]), backoff)
            view = view[self.offset - start :]
        self._unsure = False

    def close(self) -> None:
        """Give the command end-of-file. Nothing happens when it has it already, or has ended."""
        backoff = Backoff(self._rpc.patience)
        with contextlib.suppress(StdinClosedError):
            while not self._send(b"", backoff, eof=True):
                pass

    def abandon(self) -> None:
        """Make a writer in another thread give up at its next step."""
        self._abandoned = True

    def _send(self, data: bytes, backoff: Backoff, *, eof: bool = False) -> bool:
        """Offer one piece; `offset` moves by as much as was accepted. True when the server took the call."""
        if self._abandoned:
            raise StdinClosedError("standard input is abandoned", code="FAILED_PRECONDITION")
        request = WriteStdinRequest(exec_id=self._exec_id, offset=self.offset, data=data, eof=eof)
        try:
            reply = self._rpc.call(self._rpc.stub.WriteStdin, request, timeout=PIECE_TIMEOUT)
        except DeadlineError:  # the command reads slowly, or the server is slow: it is asked
            self._ask_offset()
        except PreconditionError as error:
            raise StdinClosedError(str(error), code=error.code, reason=error.reason) from error
        except CallError as error:
            if not is_unanswered(error):
                raise
            wait_or_raise(backoff, error)
        else:
            self.offset = reply.stdin.bytes_written
            backoff.progress()
            return True
        return False

    def _ask_offset(self) -> None:
        request = PollRequest(exec_id=self._exec_id, offset=0, max_bytes=1)
        stdin = (self._rpc.call_until_answered(self._rpc.stub.Poll, request)).execution.stdin
        if not stdin.open:
            raise StdinClosedError("standard input is closed", code="FAILED_PRECONDITION")
        self.offset = max(self.offset, stdin.bytes_written)
