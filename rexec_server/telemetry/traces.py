"""Traces, as spans of OpenTelemetry: an Exec, the spawn that it causes, and the run up to its end.

The run's span is made by whichever server sees its end: of the Exec's span the execution has kept what is needed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rexec_server.core.execution import Execution, State
from rexec_server.core.index import now_ns
from rexec_server.core.observer import Observer
from rexec_server.core.spool import StartError

_log = logging.getLogger(__name__)

_TRACEPARENT = "traceparent"
# What a server that stops gives its collector to take the rest.
FLUSH_SECONDS = 2.0

_context = TraceContextTextMapPropagator()


class Traces(Observer):
    """Sends spans to a collector, as OTEL_* says."""

    def __init__(self, version: str) -> None:
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("rexec", version)

    def close(self) -> None:
        """Sends what is left. A collector that is not there is not waited for longer than FLUSH_SECONDS."""
        give_up = threading.Timer(FLUSH_SECONDS, self._exporter.shutdown)
        give_up.start()
        self._provider.shutdown()
        give_up.cancel()
        give_up.join()

    @contextmanager
    def serving(self, service: str, method: str, metadata: Mapping[str, str]) -> Iterator[Callable[[str], None]]:
        """A span for the time of this block, within the trace that the metadata names. Yields how to say its status."""
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        with self._tracer.start_as_current_span(
            f"{service}/{method}",
            context=_context.extract(metadata, Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,  # its text may hold anything
            set_status_on_exception=False,
        ) as span:

            def told(code: str) -> None:
                span.set_attribute("rpc.response.status_code", code)
                if code != "OK":
                    span.set_status(Status(StatusCode.ERROR, code))

            yield told

    def trace(self) -> str:
        carrier: dict[str, str] = {}
        _context.inject(carrier)
        return carrier.get(_TRACEPARENT, "")

    def spawned(self, name: str, execution: Execution, began: int, error: StartError | None) -> None:
        span = self._span("spawn", name, execution, began)
        if error:
            span.set_status(Status(StatusCode.ERROR, error.errno))
        span.end(now_ns())

    def ended(self, name: str, execution: Execution) -> None:
        record = execution.exit
        assert record is not None
        span = self._span("run", name, execution, execution.start_time or execution.create_time)
        span.set_attributes({"rexec.state": execution.state.name, "rexec.reason": record.reason.name})
        if record.exit_code is not None:
            span.set_attribute("process.exit.code", record.exit_code)
        if record.signal is not None:
            span.set_attribute("rexec.signal", record.signal)
        if execution.state is not State.SUCCEEDED:
            span.set_status(Status(StatusCode.ERROR, record.reason.name))
        span.end(record.end_time)

    def _span(self, what: str, name: str, execution: Execution, start: int) -> Span:
        """Below the Exec that started it, whoever served that."""
        parent = _context.extract({_TRACEPARENT: execution.request.trace}, Context())
        about = {"rexec.exec_id": execution.key.exec_id, "rexec.caller": execution.key.caller, "rexec.execution": name}
        return self._tracer.start_span(what, context=parent, attributes=about, start_time=start)


def _resource(version: str) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first."""
    own = Resource({"service.name": "rexec-server", "service.version": version})
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create().merge(own) if not named else own.merge(Resource.create())
