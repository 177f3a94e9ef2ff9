"""Counts every call of every service, in one place: the outermost interceptor, which also sees what others refuse."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
from grpc.aio import ServerInterceptor

from rexec_server.rpc.rights import RIGHTS

Context = grpc.aio.ServicerContext[Any, Any]

# A deadline passes at the caller first, whose clock began when the request was sent: its cancellation is here before
# our own clock is at the end. On two busy cores at most 6 ms were left (200 calls); this is ten times that.
DEADLINE_SLACK_SECONDS = 0.06

# Anybody can make up names, and each would be a series for ever.
UNKNOWN = "unknown"


class MethodMeter(Protocol):
    """The counters of one method."""

    def started(self) -> None: ...

    def received(self) -> None: ...

    def sent(self) -> None: ...

    def handled(self, code: str, seconds: float) -> None:
        """code: a status's name, such as NOT_FOUND."""


class MeterInterceptor(ServerInterceptor):
    """Tells of each call: that it began, each message, how it ended and after how long."""

    def __init__(self, meter_of: Callable[[str, str, str], MethodMeter]) -> None:
        """meter_of: makes the counters of a method from its type (such as `server_stream`), service and name."""
        self._meter_of = meter_of
        self._meters: dict[str, MethodMeter] = {}
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = self._counted(method, await continuation(handler_call_details))
            if method in RIGHTS:  # of the others there may be any number
                self._handlers[method] = handler
        return handler

    def _counted(self, name: str, handler: Any) -> Any:
        """What serves a method, counted. One for all calls: each follower holds it."""
        meter = self._meter(name, handler)
        codec = handler.request_deserializer, handler.response_serializer
        if not handler.response_streaming:  # of our services none takes a stream and answers once
            return grpc.unary_unary_rpc_method_handler(_unary(meter, handler.unary_unary), *codec)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(_bidirectional(meter, handler.stream_stream), *codec)
        method = handler.unary_stream
        counted = _streaming(meter, method) if inspect.isasyncgenfunction(method) else _writing(meter, method)
        return grpc.unary_stream_rpc_method_handler(counted, *codec)

    def _meter(self, method: str, handler: Any) -> MethodMeter:
        known = method if method in RIGHTS else UNKNOWN
        meter = self._meters.get(known)
        if meter is None:
            service, _, name = known.removeprefix("/").rpartition("/")
            meter = self._meters[known] = self._meter_of(_kind(handler), service or UNKNOWN, name)
        return meter


def code_of(error: BaseException, context: Any) -> grpc.StatusCode:
    """The status that a call ends with whose handler raised this."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        left = context.time_remaining()
        late = left is not None and left <= DEADLINE_SLACK_SECONDS
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    if isinstance(error, grpc.aio.AbortError):
        code = context.code()
        return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
    # Ours end in an abort, whatever happens: this is a client that went away in the middle of a message.
    return grpc.StatusCode.UNKNOWN


class _Counted:
    """Counts one call, which lasts as long as this block."""

    __slots__ = ("_began", "_context", "_meter")

    def __init__(self, meter: MethodMeter, context: Context) -> None:
        self._meter = meter
        self._context = context
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._meter.started()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        code = grpc.StatusCode.OK if error is None else code_of(error, self._context)
        self._meter.handled(code.name, time.perf_counter() - self._began)


def _kind(handler: Any) -> str:
    if handler.request_streaming:
        return "bidi_stream" if handler.response_streaming else "client_stream"
    return "server_stream" if handler.response_streaming else "unary"


def _unary(meter: MethodMeter, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        with _Counted(meter, context):
            meter.received()
            answer = await method(request, context)
            meter.sent()
            return answer

    return call


def _streaming(
    meter: MethodMeter, method: Callable[..., AsyncGenerator[Any, None]]
) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with _Counted(meter, context):
            meter.received()
            async with contextlib.aclosing(method(request, context)) as messages:
                async for message in messages:
                    meter.sent()
                    yield message
                    del message

    return call


def _bidirectional(
    meter: MethodMeter, method: Callable[..., AsyncGenerator[Any, None]]
) -> Callable[..., AsyncIterator[Any]]:
    async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async def received() -> AsyncIterator[Any]:
            async for request in requests:
                meter.received()
                yield request

        with _Counted(meter, context):
            async with contextlib.aclosing(method(received(), context)) as messages:
                async for message in messages:
                    meter.sent()
                    yield message
                    del message

    return call


def _writing(meter: MethodMeter, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """For a method that writes its messages itself, so that nobody counts them: only Health/Watch does."""

    async def call(request: Any, context: Context) -> Any:
        with _Counted(meter, context):
            meter.received()
            return await method(request, context)

    return call
