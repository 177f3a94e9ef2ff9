# Generated from rexec_client/_async/follow.py by scripts/gen_sync_client.py: do not edit.
"""One Follow that survives its connections: it goes on at the last offset until the end has come."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import grpc
from rexec.v1.execution_service_pb2 import FollowRequest, FollowResponse

from rexec_client._sync import backend
from rexec_client._sync.rpc import Rpc, wait_or_raise
from rexec_client.backoff import Backoff
from rexec_client.errors import (
    CallError,
    DeadlineError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
    WaitTimeoutError,
)
from rexec_client.status import CUTS, call_error

log = logging.getLogger("rexec_client")

# A stream may hang in a proxy without any sign: it is renewed this often, in seconds, which loses nothing.
RENEW_AFTER = 300.0


class Follow:
    """The messages of a Follow, without those that only say that a connection came or went."""

    def __init__(
        self,
        rpc: Rpc,
        request: FollowRequest,
        *,
        patience: float,
        until: float | None = None,
        renew_after: float = RENEW_AFTER,
        may_only_look: bool = False,
    ) -> None:
        """Give up after `patience` seconds without progress, or at the monotonic time `until`.

        `may_only_look`: a credential that may not hold follows without holding.
        """
        self._rpc = rpc
        self._request = request
        self._backoff = Backoff(patience)
        self._until = until
        self._renew_after = renew_after
        self._may_only_look = may_only_look
        self._call: backend.FollowCall | None = None
        self._failure: Exception | None = None
        self._attached = False
        self._cut = False

    def receive(self) -> FollowResponse:
        """The next message. After `end` there is none: do not ask.

        Raises:
            CallError: the server's answer, or the last of the failures when patience ran out.
            WaitTimeoutError: `until` has come.
        """
        while True:
            try:
                response = self._read()
            except CallError as error:
                self._drop_call()
                self._endure(error)
            else:
                self._note(response)
                return response

    @property
    def holder(self) -> str:
        """The name under which it holds; empty when it does not, or may not."""
        return self._request.holder

    def skip_to(self, offset: int) -> None:
        """Begin there: what is before came another way."""
        self._request.offset = offset

    def abort(self, failure: Exception) -> None:
        """Make the reader raise `failure`: for whoever works beside it and cannot go on. From any thread."""
        self._failure = failure
        self._drop_call()

    def close(self) -> None:
        """Stop following. The command is not touched."""
        self._drop_call()

    def _read(self) -> FollowResponse:
        if self._call is None:
            self._call = self._rpc.follow(self._request, timeout=self._seconds_left())
            self._responses: Iterator[FollowResponse] = iter(self._call)
            if self._failure is not None:  # looked at after the call is there to be cancelled: none slips through
                raise self._failure
        try:
            return next(self._responses)
        except StopIteration:
            raise UnavailableError("the stream ended before the execution did", code="UNAVAILABLE") from None
        except grpc.RpcError as error:
            failure = call_error(error)
            failure.exec_id = self._request.exec_id
            raise failure from error

    def _endure(self, error: CallError) -> None:
        """Wait before the next attempt, or raise."""
        if self._failure is not None:
            raise self._failure
        if isinstance(error, PermissionDeniedError) and self._may_only_look and self._request.holder:
            self._request.holder = ""
            return
        # A server that comes back finds all its followers at its door: it may let them in one after the other.
        if error.code not in CUTS and not (self._attached and isinstance(error, ResourceExhaustedError)):
            raise error
        if self._until is not None and time.monotonic() >= self._until:
            raise WaitTimeoutError(f"{self._request.exec_id} has not ended in time") from error
        if not isinstance(error, DeadlineError) and not self._cut:
            self._cut = True  # said once, however many attempts it takes
            log.info("connection lost while following %s; trying to resume (%s)", self._request.exec_id, error)
        wait_or_raise(self._backoff, error)

    def _note(self, response: FollowResponse) -> None:
        """Remember where to go on, and that it is worth it."""
        self._attached = True
        if self._cut:
            self._cut = False
            log.info("resumed %s at offset %d", self._request.exec_id, response.next_offset)
        moved = self._request.WhichOneof("start") != "offset" or response.next_offset > self._request.offset
        if moved or response.WhichOneof("event") == "heartbeat":
            self._backoff.progress()
        if moved:
            self._request.offset = response.next_offset

    def _seconds_left(self) -> float:
        if self._until is None:
            return self._renew_after
        return max(min(self._until - time.monotonic(), self._renew_after), 0.0)

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
