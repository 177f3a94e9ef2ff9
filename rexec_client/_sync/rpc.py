# Generated from rexec_client/_async/rpc.py by scripts/gen_sync_client.py: do not edit.
"""The calls of one channel: opened at the first use, credentials attached, errors translated."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from rexec.v1.execution_pb2 import Execution
from rexec.v1.execution_service_pb2 import FollowRequest, GetRequest, GetServerInfoRequest, PollRequest
from rexec.v1.execution_service_pb2_grpc import ExecutionServiceStub

from rexec_client._sync import backend
from rexec_client.backoff import Backoff
from rexec_client.credentials import Credentials
from rexec_client.errors import CallError
from rexec_client.requests import duration
from rexec_client.status import call_error, is_unanswered
from rexec_client.tls import Tls

if TYPE_CHECKING:
    from rexec.v1.execution_service_pb2_grpc import ExecutionServiceStub

log = logging.getLogger("rexec_client")

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Rpc:
    """Every gRPC call of a client goes through here."""

    def __init__(
        self, target: str, credentials: Credentials, *, timeout: float, patience: float, tls: Tls | None = None
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.patience = patience
        self._credentials = credentials
        self._tls = tls
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._features: frozenset[str] | None = None
        self._has_get = True

    @property
    def stub(self) -> ExecutionServiceStub:
        # At the first call, not before: a channel must belong to the loop that uses it, and must not be forked.
        with self._lock:
            if self._channel is None:
                self._channel = backend.open_channel(self.target, self._tls)
                self._stub = ExecutionServiceStub(self._channel)
            return self._stub

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
    ) -> ResponseT:
        """One call, with a deadline in seconds."""
        try:
            return method(request, timeout=timeout or self.timeout, metadata=self._credentials())
        except grpc.RpcError as error:
            raise _failure(error, request) from error

    def send(
        self, method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT, *, timeout: float
    ) -> backend.UnaryCall[ResponseT]:
        """Send a call whose answer is asked for later, with `answer`; it can be cancelled."""
        return backend.send(method, request, timeout, self._credentials())

    def answer(self, call: backend.UnaryCall[ResponseT], request: RequestT) -> ResponseT:
        """Return the answer to a call that was sent."""
        try:
            return backend.answer(call)
        except grpc.RpcError as error:
            raise _failure(error, request) from error

    def call_until_answered(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        timeout: float | None = None,
        failures: list[CallError] | None = None,
    ) -> ResponseT:
        """Repeat the call while the server is away or silent: only for what the server does once however often.

        `failures` gets those that were not answers.
        """
        backoff = Backoff(self.patience)
        while True:
            try:
                return self.call(method, request, timeout=timeout)
            except CallError as error:
                if not is_unanswered(error):
                    raise
                if failures is not None:
                    failures.append(error)
                if not backoff.failing and self.patience:
                    log.info("no answer from %s yet; trying for %g s (%s)", self.target, self.patience, error)
                wait_or_raise(backoff, error)

    def begin(
        self,
        method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        done: Callable[[bool], None],
    ) -> Any:
        """Start a call and go on; `done` hears whether it succeeded. Keep what is returned until then."""
        return backend.begin_call(method, request, timeout=self.timeout, metadata=self._credentials(), done=done)

    def features(self) -> frozenset[str]:
        """Return what the server can do, asked once per channel."""
        if self._features is None:
            info = self.call_until_answered(self.stub.GetServerInfo, GetServerInfoRequest())
            self._features = frozenset(info.features)
        return self._features

    def get(self, exec_id: str, owner: str, wait: float = 0.0) -> Execution:
        """Return an execution as it is now, or as soon as it has ended or waits for a reader."""
        if wait or self._has_get:
            request = GetRequest(exec_id=exec_id, caller=owner, wait=duration(wait) if wait else None)
            try:
                return (self.call(self.stub.Get, request, timeout=self.timeout + wait)).execution
            except CallError as error:
                if wait or error.code != "UNIMPLEMENTED":
                    raise
                self._has_get = False  # an older server: its Poll tells the same
        poll = PollRequest(exec_id=exec_id, offset=0, max_bytes=1, caller=owner)
        return (self.call(self.stub.Poll, poll)).execution

    def follow(self, request: FollowRequest, *, timeout: float) -> backend.FollowCall:
        """One Follow on one connection: see follow.py for one that survives it."""
        return self.stub.Follow(request, timeout=timeout, metadata=self._credentials())

    def close(self) -> None:
        with self._lock:
            channel, self._channel = self._channel, None
            self._features = None
        if channel is not None:
            channel.close()


def _failure(error: grpc.RpcError, request: object) -> CallError:
    failure = call_error(error)
    failure.exec_id = getattr(request, "exec_id", None)
    return failure


def wait_or_raise(backoff: Backoff, error: CallError) -> None:
    """Sleep until the next attempt; raise `error` when patience is at its end."""
    delay = backoff.next_delay()
    if delay is None:
        raise error
    backend.sleep(delay)
