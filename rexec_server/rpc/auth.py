"""Gives every call its caller, before anything else looks at it; and turns errors into statuses after."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServerInterceptor

from rexec_server.core.errors import InvalidRequest, Unavailable
from rexec_server.policy.caller import Authenticator, Caller
from rexec_server.rpc.errors import abort

Context = grpc.aio.ServicerContext[Any, Any]

_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")

# Says that a process serves, and nothing about anybody: load balancers ask without credentials.
OPEN_SERVICES = ("/grpc.health.v1.Health/",)


def current_caller() -> Caller:
    """Who makes the call that is being served."""
    return _caller.get()


class CallInterceptor(ServerInterceptor):
    """Authenticates each call of every service, refuses them while draining, and ends failed ones with their status."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self.draining = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(OPEN_SERVICES):
            return handler
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream), _tolerant(handler), handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary), _tolerant(handler), handler.response_serializer
        )

    def _enter(self, context: Context) -> None:
        if self.draining:
            raise Unavailable("the server is stopping")
        metadata = context.invocation_metadata() or ()
        given = [
            value if isinstance(value, str) else value.decode() for key, value in metadata if key == "authorization"
        ]
        _caller.set(self._authenticator.authenticate(given))

    def _unary(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            try:
                self._enter(context)
                _check_decoded(request)
                answer = method(request, context)
                return await answer if inspect.isawaitable(answer) else answer  # channelz is not async
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, error)

        return call

    def _streaming(self, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._enter(context)
                _check_decoded(request)
                async for message in method(request, context):
                    yield message
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, error)

        return call


def _tolerant(handler: Any) -> Callable[[bytes], Any]:
    """A handler's deserializer that returns its error: gRPC itself would make UNKNOWN of it, before we see the call."""

    def deserialize(data: bytes) -> Any:
        try:
            return handler.request_deserializer(data)
        except DecodeError as error:
            return error

    return deserialize


def _check_decoded(request: Any) -> None:
    if isinstance(request, DecodeError):
        raise InvalidRequest("request", "is no message of this call's type")
