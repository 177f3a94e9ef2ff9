"""What asyncio does here and threads do in `_sync`: the same names in both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc

from rexec_client.channel import channel_options
from rexec_client.credentials import Metadata
from rexec_client.tls import Tls

if TYPE_CHECKING:
    from rexec.v1.execution_service_pb2 import FollowRequest, FollowResponse, WriteStdinResponse

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

FollowCall: TypeAlias = "grpc.aio.UnaryStreamCall[FollowRequest, FollowResponse]"
UnaryCall: TypeAlias = "grpc.aio.UnaryUnaryCall[Any, ResponseT]"
WriteCall: TypeAlias = "UnaryCall[WriteStdinResponse]"

sleep = asyncio.sleep
Timer = asyncio.TimerHandle


def open_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel, in plaintext unless TLS is asked for; it connects at its first call."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=channel_options(target))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*tls.read()), options=channel_options(target))


def begin_call(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    timeout: float,
    metadata: Any,
    done: Callable[[bool], None],
) -> asyncio.Task[None]:
    """Start a call and go on; `done` hears whether it succeeded."""

    async def wait() -> None:
        succeeded = False
        try:
            await method(request, timeout=timeout, metadata=metadata)
            succeeded = True
        except (grpc.RpcError, grpc.aio.UsageError):
            pass  # `done` hears it; a closed channel is such a failure too
        finally:
            done(succeeded)

    return asyncio.ensure_future(wait())


async def settle(call: asyncio.Task[None], seconds: float) -> None:
    """Wait until a call that was begun is over, but no longer than so many seconds."""
    await asyncio.wait([call], timeout=seconds)


def call_later(seconds: float, function: Callable[[], None]) -> Timer:
    """Call a function in so many seconds, unless it is cancelled."""
    return asyncio.get_running_loop().call_later(seconds, function)


def send(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT, timeout: float, metadata: Metadata
) -> UnaryCall[ResponseT]:
    """Send a call now, whose answer is asked for later."""
    return method(request, timeout=timeout, metadata=metadata)


async def answer(call: UnaryCall[ResponseT]) -> ResponseT:
    """Return the answer to a call that was sent; RpcError."""
    return await call


class Background:
    """Work beside the body of `async with`; leaving the body ends it."""

    def __init__(self, work: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
        """`stop` tells the work to end soon; it may be cancelled instead."""
        self._work = work
        self._stop = stop

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
