"""Gives every call its caller, before anything else looks at it; and turns errors into statuses after."""

from __future__ import annotations

import contextvars
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServerInterceptor

from rexec_server.core.errors import Exhausted, InvalidRequest, NotAllowed, NotServed, Unauthenticated, Unavailable
from rexec_server.core.turns import Turns
from rexec_server.policy.caller import Authenticator, Caller, Presented
from rexec_server.policy.limits import CallLimits
from rexec_server.policy.recorder import Recorder
from rexec_server.rpc.decode import bounded
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

    def __init__(self, authenticator: Authenticator, limits: CallLimits, recorder: Recorder, turns: Turns) -> None:
        self._authenticator = authenticator
        self._recorder = recorder
        self._limits = limits
        self._turns = turns
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
            return self._open(method, handler)
        if handler.request_streaming:
            decode_each = self._each(bounded(method, handler.request_deserializer))
            streaming = self._streaming(method, handler.stream_stream, decode_each, handler.response_serializer)
            return grpc.stream_stream_rpc_method_handler(streaming)
        if handler.response_streaming:
            # gRPC holds request and answer of a stream until its next message: bytes take less room than messages.
            decode = bounded(method, handler.request_deserializer)
            streaming = self._streaming(method, handler.unary_stream, decode, handler.response_serializer)
            return grpc.unary_stream_rpc_method_handler(streaming)
        decode = bounded(method, handler.request_deserializer)
        unary = self._unary(method, handler.unary_unary, decode, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(unary)

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

    def _unary(
        self,
        name: str,
        method: Callable[..., Awaitable[Any]],
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
    ) -> Callable[..., Awaitable[Any]]:
        """Return a method that decodes at its caller's turn: the largest takes as long as a hundred small ones."""

        async def call(request: bytes, context: Context) -> bytes:
            try:
                caller = self._enter(context, name)
                await self._turns.take(caller.name)
                answer = method(decode(request), context)
                answer = await answer if inspect.isawaitable(answer) else answer  # channelz is not async
                self._check_still(caller)
                return encode(answer)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                request = b""  # see `abort`
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
                await self._turns.take(caller.name)
                async for message in method(decode(request), context):
                    # Heartbeats come at least once a minute: so long may a caller follow who is one no more.
                    self._check_still(caller)
                    encoded = [encode(message)]
                    del message  # while its bytes are sent it is no longer needed
                    yield encoded.pop()
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                request = b""  # see `abort`
                await abort(context, error)

        return call

    def _each(self, decode: Callable[[bytes], Any]) -> Callable[[AsyncIterator[bytes]], AsyncIterator[Any]]:
        """Return a decoder for a stream of requests."""

        async def decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for request in requests:
                await self._turns.take(current_caller().name)
                yield decode(request)

        return decoded

    def _open(self, path: str, handler: Any) -> Any:
        """A handler that serves whoever asks: none of them shall fill the log with nonsense, or hold all streams."""
        if not handler.response_streaming:
            unary = _decoded(handler.unary_unary, bounded(path, handler.request_deserializer))
            return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)
        method = _decoded(handler.unary_stream, bounded(path, handler.request_deserializer))

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

        return grpc.unary_stream_rpc_method_handler(call, None, handler.response_serializer)

    def _unknown(self, name: str) -> Callable[..., AsyncIterator[Any]]:
        """A method that is not served looks like any other to whom is not let in."""

        async def nothing(request: Any, context: Context) -> AsyncIterator[Any]:
            raise NotServed
            yield

        return self._streaming(name, nothing)


def _decoded(method: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]) -> Callable[..., Awaitable[Any]]:
    """Return a method that is only called with a message. gRPC itself would make UNKNOWN of a decoder's error."""

    async def call(request: bytes, context: Context) -> Any:
        try:
            message = decode(request)
        except InvalidRequest as error:
            request = b""  # see `abort`
            await abort(context, error)
        return await method(message, context)

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
