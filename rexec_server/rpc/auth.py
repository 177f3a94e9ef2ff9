"""Gives every call its caller, before anything else looks at it; and turns errors into statuses after."""

from __future__ import annotations

import contextvars
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServerInterceptor

from rexec_server.core.errors import Exhausted, InvalidRequest, NotAllowed, NotServed, Unauthenticated, Unavailable
from rexec_server.policy.caller import Authenticator, Caller, Presented
from rexec_server.policy.limits import CallLimits
from rexec_server.policy.recorder import Recorder
from rexec_server.rpc.errors import abort
from rexec_server.rpc.peer import peer_of
from rexec_server.rpc.rights import RIGHTS, Right, check

Context = grpc.aio.ServicerContext[Any, Any]

# Streams of those who need no credential, from one address.
MOST_OPEN_STREAMS = 32

_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def current_caller() -> Caller:
    """Who makes the call that is being served."""
    return _caller.get()


def _as_it_is(message: Any) -> Any:
    return message


class CallInterceptor(ServerInterceptor):
    """Authenticates each call of every service, refuses them while draining, and ends failed ones with their status."""

    def __init__(self, authenticator: Authenticator, limits: CallLimits, recorder: Recorder) -> None:
        self._authenticator = authenticator
        self._recorder = recorder
        self._limits = limits
        self.draining = False
        self._open_streams: Counter[str] = Counter()  # by address
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = self._handler(method, await continuation(handler_call_details))
            if method in RIGHTS:  # of the others there may be any number
                self._handlers[method] = handler
        return handler

    def _handler(self, method: str, handler: Any) -> Any:
        """What serves a method, given what would without us. One for all calls: each of ten thousand holds it."""
        if handler is None or method not in RIGHTS:
            return grpc.stream_stream_rpc_method_handler(self._unknown(method))
        if RIGHTS[method] is Right.OPEN:
            return self._open(handler)
        if handler.request_streaming:
            streaming = self._streaming(method, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(
                streaming, handler.request_deserializer, handler.response_serializer
            )
        if handler.response_streaming:
            # gRPC holds request and answer of a stream until its next message: bytes take less room than messages.
            streaming = self._streaming(
                method, handler.unary_stream, handler.request_deserializer, handler.response_serializer
            )
            return grpc.unary_stream_rpc_method_handler(streaming)
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary), _tolerant(handler), handler.response_serializer
        )

    def _enter(self, context: Context, method: str) -> Caller:
        """Who calls, if that caller may call this."""
        if self.draining:
            raise Unavailable("the server is stopping")
        try:
            caller = self._authenticator.authenticate(_presented(context))
        except (Unauthenticated, NotAllowed) as error:
            self._recorder.event("unauthenticated", None, peer=peer_of(context), call=method, reason=error.message)
            raise
        self._limits.take(caller)
        try:
            check(caller, method)
        except NotAllowed as error:
            self._recorder.event("denied", caller, call=method, reason=error.message)
            raise
        _caller.set(caller)
        return caller

    def _check_still(self, caller: Caller) -> None:
        """A call may have waited for long: its answer is for who is a caller now."""
        if not self._authenticator.still_valid(caller):
            raise Unauthenticated("this caller's rights were changed meanwhile")

    def _unary(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            try:
                caller = self._enter(context, name)
                _check_decoded(request)
                answer = method(request, context)
                answer = await answer if inspect.isawaitable(answer) else answer  # channelz is not async
                self._check_still(caller)
                return answer
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, error)

        return call

    def _streaming(
        self,
        name: str,
        method: Callable[..., AsyncIterator[Any]],
        decode: Callable[[Any], Any] = _as_it_is,
        encode: Callable[[Any], Any] = _as_it_is,
    ) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                caller = self._enter(context, name)
                async for message in method(decode(request), context):
                    # Heartbeats come at least once a minute: so long may a caller follow who is one no more.
                    self._check_still(caller)
                    yield encode(message)
                    del message
            except grpc.aio.AbortError:
                raise
            except DecodeError:
                await abort(context, _no_message())
            except Exception as error:
                await abort(context, error)

        return call

    def _open(self, handler: Any) -> Any:
        """A handler that serves whoever asks: none of them shall fill the log with nonsense, or hold all streams."""
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                _decoded(handler.unary_unary), _tolerant(handler), handler.response_serializer
            )
        method = _decoded(handler.unary_stream)

        async def call(request: Any, context: Context) -> Any:
            address = peer_of(context).rpartition(":")[0]
            if self._open_streams[address] >= MOST_OPEN_STREAMS:
                await abort(context, Exhausted("open streams", "too many watch from there; ask once", 5.0))
            self._open_streams[address] += 1
            try:
                return await method(request, context)
            finally:
                self._open_streams[address] -= 1
                if not self._open_streams[address]:
                    del self._open_streams[address]

        return grpc.unary_stream_rpc_method_handler(call, _tolerant(handler), handler.response_serializer)

    def _unknown(self, name: str) -> Callable[..., AsyncIterator[Any]]:
        """A method that is not served looks like any other to whom is not let in."""

        async def nothing(request: Any, context: Context) -> AsyncIterator[Any]:
            raise NotServed
            yield

        return self._streaming(name, nothing)


def _decoded(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A method that is only called with a message."""

    async def call(request: Any, context: Context) -> Any:
        if isinstance(request, DecodeError):
            await abort(context, _no_message())
        return await method(request, context)

    return call


def _presented(context: Context) -> Presented:
    metadata = context.invocation_metadata() or ()
    verified = context.auth_context()
    uris = None
    if verified.get("transport_security_type") and "x509_pem_cert" in verified:
        uris = tuple(uri.decode(errors="replace") for uri in verified.get("peer_uri", ()))
    return Presented(
        authorization=tuple(
            value if isinstance(value, str) else value.decode(errors="replace")
            for name, value in metadata
            if name == "authorization"
        ),
        metadata_names=frozenset(name for name, _ in metadata),
        uris=uris,
        peer=peer_of(context),
    )


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
        raise _no_message()


def _no_message() -> InvalidRequest:
    return InvalidRequest("request", "is no message of this call's type")
