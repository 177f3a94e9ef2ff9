"""Exec, spawn and run are one trace, whichever server sees the end of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from rexec.v1 import execution_service_pb2 as api

from rexec_server.telemetry.otel import asked
from tests.rpc.calls import request, run, start
from tests.servers import Server
from tests.telemetry.collector import Collector, attributes
from tests.waiting import eventually

EXEC = "rexec.v1.ExecutionService/Exec"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


@pytest.fixture
def traced(start_server: Callable[..., Server], collector: Collector) -> Server:
    """A server that sends its spans to the test's collector."""
    return start_server(env=collector.environment)


def is_below(child: Span, parent: Span) -> bool:
    return child.trace_id == parent.trace_id and child.parent_span_id == parent.span_id


def test_exec_spawn_and_run_are_one_trace(traced: Server, collector: Collector) -> None:
    """The spawn and the run are below the Exec that caused them, with whose they are and how the run ended."""
    execution = run(traced, "sh", "-c", "exit 3").execution
    call = collector.named(EXEC)
    spawn, end = collector.named("spawn", execution.exec_id), collector.named("run", execution.exec_id)
    assert is_below(spawn, call)
    assert is_below(end, call)
    assert call.kind == Span.SPAN_KIND_SERVER
    assert attributes(call)["rpc.response.status_code"] == "OK"
    told = attributes(end)
    assert told["rexec.caller"] == "dev"
    assert told["rexec.reason"] == "EXITED"
    assert told["process.exit.code"] == 3
    assert end.status.code == Status.STATUS_CODE_ERROR
    assert end.start_time_unix_nano == execution.start_time.ToNanoseconds()
    assert end.end_time_unix_nano == execution.end_time.ToNanoseconds()
    assert collector.services == {"rexec-server"}
    # The lines of the start and of the end.
    eventually(lambda: traced.log.count(f" trace_id={call.trace_id.hex()} ") == 2, within=60)


def test_a_callers_trace_is_continued(traced: Server, collector: Collector) -> None:
    """The metadata `traceparent` names the span that the Exec is below."""
    metadata = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
    execution = traced.stub.Exec(request("true"), metadata=metadata, timeout=60).execution
    call, end = collector.named(EXEC), collector.named("run", execution.exec_id)
    assert call.trace_id.hex() == end.trace_id.hex() == TRACE
    assert call.parent_span_id.hex() == PARENT
    assert end.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize("value", ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", "x" * 4000])
def test_a_traceparent_that_is_none_begins_a_trace(traced: Server, collector: Collector, value: str) -> None:
    """Whatever a caller writes there, the command runs."""
    metadata = [("traceparent", value)]
    execution = traced.stub.Exec(request("true"), metadata=metadata, timeout=60).execution
    assert is_below(collector.named("run", execution.exec_id), collector.named(EXEC))
    assert collector.named(EXEC).parent_span_id == b""


def test_what_a_caller_does_not_want_recorded_is_not(traced: Server, collector: Collector) -> None:
    """A traceparent without the flag `sampled` makes no spans, not of the end either."""
    metadata = [("traceparent", f"00-{TRACE}-{PARENT}-00")]
    traced.stub.Exec(request("true", wait=30), metadata=metadata, timeout=60)
    seen = run(traced, "true").execution
    collector.named("run", seen.exec_id)
    assert TRACE not in {span.trace_id.hex() for span in collector.spans}


def test_a_run_whose_server_died_ends_in_its_trace(traced: Server, collector: Collector) -> None:
    """kill -9 of the server: the one that sees the end makes the run's span, below the Exec that the other served."""
    execution = start(traced, "sleep", "600")
    call, spawn = collector.named(EXEC), collector.named("spawn", execution.exec_id)
    traced.restart()
    cancel = api.CancelRequest(exec_id=execution.exec_id)
    traced.stub.Cancel(cancel, wait_for_ready=True, timeout=60)
    end = collector.named("run", execution.exec_id)
    assert is_below(end, call)
    assert spawn.trace_id == end.trace_id
    assert attributes(end)["rexec.reason"] == "CANCELLED"
    assert end.start_time_unix_nano == execution.start_time.ToNanoseconds()


def test_a_refused_exec_is_a_span_with_its_status(traced: Server, collector: Collector) -> None:
    """It has nothing below it, and says with which status it was refused; what was asked for is not in it."""
    with pytest.raises(grpc.RpcError):
        traced.stub.Exec(api.ExecRequest(arguments=["a\0secret"]), timeout=60)
    call = collector.named(EXEC)
    assert attributes(call)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert call.status.code == Status.STATUS_CODE_ERROR
    assert b"secret" not in call.SerializeToString()


def test_arguments_and_environment_are_in_no_span(traced: Server, collector: Collector) -> None:
    """Spans go to another program: neither what was run nor what it was given goes along."""
    asked_for = request("sh", "-c", "echo $TOKEN # secret-argument", wait=30)
    asked_for.environment_variables["TOKEN"] = "secret-value"
    execution = traced.stub.Exec(asked_for, timeout=60).execution
    collector.named("run", execution.exec_id)
    eventually(lambda: len(collector.spans) == 3, within=60)
    assert not [span for span in collector.spans if b"secret" in span.SerializeToString()]


def test_a_server_stops_though_nobody_takes_its_spans(start_server: Callable[..., Server]) -> None:
    """A collector that is not there keeps neither a command nor the server's end waiting."""
    server = start_server(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"})
    run(server, "true")
    assert server.terminate() == 0


def test_without_the_extra_there_are_none(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """A machine may have OTEL_* for all its programs: that keeps no server from starting, and the log says it."""
    (tmp_path / "opentelemetry.py").write_text("")  # is found before the package, and has nothing of it
    environment = {"PYTHONPATH": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    server = start_server(env=environment)
    assert run(server, "true").execution.exit_code == 0
    assert "need the extra rexec[otel]" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, False),
    ],
)
def test_the_environment_decides_whether_there_are_traces(environment: dict[str, str], expected: bool) -> None:
    """The variables that every program with OpenTelemetry knows, and nothing else; without them there are none."""
    assert asked(environment) is expected
