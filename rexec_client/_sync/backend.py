"""What threads do here and asyncio does in `_async`: the same names in both. Written by hand."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc
from rexec.v1.execution_service_pb2 import FollowResponse, WriteStdinResponse

from rexec_client.channel import channel_options
from rexec_client.credentials import Metadata
from rexec_client.tls import Tls

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
AnswerT = TypeVar("AnswerT", covariant=True)

sleep = time.sleep
Timer = threading.Timer


class FollowCall(Iterator[FollowResponse], Protocol):
    """One Follow on one connection."""

    def cancel(self) -> object: ...


class UnaryCall(Protocol, Generic[AnswerT]):
    """One call in flight."""

    def result(self) -> AnswerT: ...

    def cancel(self) -> object: ...


WriteCall: TypeAlias = UnaryCall[WriteStdinResponse]


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel, in plaintext unless TLS is asked for; it connects at its first call."""
    if tls is None:
        return grpc.insecure_channel(target, options=channel_options(target))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*tls.read()), options=channel_options(target))


def begin_call(
    method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    timeout: float,
    metadata: Any,
    done: Callable[[bool], None],
) -> grpc.Future[ResponseT]:
    """Start a call and go on; `done` hears, from another thread, whether it succeeded."""
    call = method.future(request, timeout=timeout, metadata=metadata)
    call.add_done_callback(lambda ended: done(not ended.cancelled() and ended.exception() is None))
    return call


def settle(call: grpc.Future[Any], seconds: float) -> None:
    """Wait until a call that was begun is over, but no longer than so many seconds."""
    with contextlib.suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
        call.result(seconds)


def call_later(seconds: float, function: Callable[[], None]) -> Timer:
    """Call a function in so many seconds, in another thread, unless it is cancelled."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def send(
    method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT, timeout: float, metadata: Metadata
) -> UnaryCall[ResponseT]:
    """A call that is sent now, and whose answer is asked for later."""
    call: UnaryCall[ResponseT] = method.future(request, timeout=timeout, metadata=metadata)
    return call


def answer(call: UnaryCall[ResponseT]) -> ResponseT:
    """The answer to a call that was sent; RpcError."""
    return call.result()


class Background:
    """Work beside the body of `with`; leaving the body ends it and leaves no thread behind."""

    def __init__(self, work: Callable[[], None], stop: Callable[[], None]) -> None:
        """`stop` tells the work to end soon: at the latest when its call in flight has its answer."""
        self._thread = threading.Thread(target=work, name="rexec-background", daemon=True)
        self._stop = stop

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join()
