"""The calls to the gRPC server: one channel for everybody, each call with its own caller's credential."""

from __future__ import annotations

import time
from contextvars import ContextVar
from datetime import timedelta

from rexec.v1 import execution_service_pb2 as api
from rexec.v1.execution_pb2 import Execution

# The library's classes take keywords and give handles. A gateway takes and gives whole messages: the seam below.
from rexec_client._sync.follow import Follow
from rexec_client._sync.rpc import Rpc
from rexec_client.credentials import Metadata
from rexec_client.errors import CallError
from rexec_client.tls import Tls

CALL_SECONDS = 10.0
# A command that does not read its input holds a worker for this long; the caller then learns how far it got.
STDIN_SECONDS = 5.0
# How long a stream waits for a server that is restarting. Whoever follows resumes by itself after that.
FOLLOW_PATIENCE = 15.0
# A stream is not renewed by itself: the token that opened it is too old for that after a few minutes.
FOLLOW_SECONDS = 24 * 3600.0
# How long the number of lines of a poll may be out of date after a restart with another --tail-lines.
_INFO_SECONDS = 5.0

# Who calls: the value of `authorization`, passed on as it is. Each request sets it, in the thread that serves it.
credential: ContextVar[str | None] = ContextVar("credential", default=None)


def _metadata() -> Metadata:
    value = credential.get()
    return (("authorization", value),) if value else ()


class Upstream:
    """`rexec.v1.ExecutionService` as the current caller. Every method may raise any CallError."""

    def __init__(self, target: str, tls: Tls | None = None) -> None:
        self._rpc = Rpc(target, _metadata, timeout=CALL_SECONDS, patience=0, tls=tls)
        self._tail_lines = 0
        self._tail_lines_until = 0.0

    def exec(self, request: api.ExecRequest) -> api.ExecResponse:
        return self._rpc.call(self._rpc.stub.Exec, request, timeout=CALL_SECONDS + _seconds(request.wait.ToTimedelta()))

    def poll(self, request: api.PollRequest) -> api.PollResponse:
        return self._rpc.call(self._rpc.stub.Poll, request, timeout=CALL_SECONDS + _seconds(request.wait.ToTimedelta()))

    def get(self, request: api.GetRequest) -> Execution:
        """An execution without its output."""
        seconds = CALL_SECONDS + _seconds(request.wait.ToTimedelta())
        try:
            return self._rpc.call(self._rpc.stub.Get, request, timeout=seconds).execution
        except CallError as error:
            if error.code != "UNIMPLEMENTED" or request.HasField("wait"):
                raise
        # The server is older than the gateway: its Poll tells the same.
        poll = api.PollRequest(exec_id=request.exec_id, exclusive_group=request.exclusive_group, caller=request.caller)
        poll.offset, poll.max_bytes = 0, 1
        return self.poll(poll).execution

    def follow(self, request: api.FollowRequest) -> Follow:
        # To resume is to acknowledge what has come this far, and of that a holder has perhaps used up nothing yet.
        patience = 0 if request.holder else FOLLOW_PATIENCE
        return Follow(self._rpc, request, patience=patience, renew_after=FOLLOW_SECONDS)

    def acknowledge(self, request: api.AcknowledgeRequest) -> api.AcknowledgeResponse:
        return self._rpc.call(self._rpc.stub.Acknowledge, request)

    def list(self, request: api.ListRequest) -> api.ListResponse:
        return self._rpc.call(self._rpc.stub.List, request)

    def signal(self, request: api.SignalRequest) -> api.SignalResponse:
        return self._rpc.call(self._rpc.stub.Signal, request)

    def cancel(self, request: api.CancelRequest) -> api.CancelResponse:
        return self._rpc.call(self._rpc.stub.Cancel, request)

    def write_stdin(self, request: api.WriteStdinRequest) -> api.WriteStdinResponse:
        return self._rpc.call(self._rpc.stub.WriteStdin, request, timeout=STDIN_SECONDS)

    def delete(self, request: api.DeleteRequest) -> api.DeleteResponse:
        return self._rpc.call(self._rpc.stub.Delete, request)

    def info(self) -> api.GetServerInfoResponse:
        return self._rpc.call(self._rpc.stub.GetServerInfo, api.GetServerInfoRequest())

    def tail_lines(self) -> int:
        """How many lines a poll shows; the server's setting."""
        if time.monotonic() > self._tail_lines_until:
            self._tail_lines = self.info().tail_lines
            self._tail_lines_until = time.monotonic() + _INFO_SECONDS
        return self._tail_lines

    def close(self) -> None:
        self._rpc.close()


def _seconds(wait: timedelta) -> float:
    return max(0.0, wait.total_seconds())
