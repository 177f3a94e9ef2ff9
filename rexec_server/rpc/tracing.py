"""Makes each Exec part of a trace: the caller's, where its metadata names one, or a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc
from grpc.aio import ServerInterceptor

from rexec_server.rpc.metering import Context, code_of

_SERVICE, _METHOD = "rexec.v1.ExecutionService", "Exec"
# W3C Trace Context.
_NAMES = ("traceparent", "tracestate")


class Tracer(Protocol):
    """Whoever makes spans."""

    def serving(
        self, service: str, method: str, metadata: Mapping[str, str]
    ) -> AbstractContextManager[Callable[[str], None]]:
        """A span for the time of the block; it yields how to tell the status's name."""


class TraceInterceptor(ServerInterceptor):
    """Of the calls only Exec has a span: the others would be many, and begin nothing."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler_call_details.method != f"/{_SERVICE}/{_METHOD}":
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._traced(handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _traced(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            with self._tracer.serving(_SERVICE, _METHOD, _trace_context(context)) as told:
                try:
                    answer = await method(request, context)
                except BaseException as error:
                    told(code_of(error, context).name)
                    raise
                told(grpc.StatusCode.OK.name)
                return answer

        return call


def _trace_context(context: Context) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {name: value for name, value in metadata if name in _NAMES and isinstance(value, str)}
