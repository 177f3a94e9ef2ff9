"""What Prometheus is told: each call, each execution, and what is there now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_server.rpc.metering import code_of
from tests.rpc.calls import ended, run, start
from tests.servers import Server
from tests.telemetry.scrape import Endpoint, calls

Watched = tuple[Server, Endpoint]


class Context:
    """As much of a call's context as tells how long it may still take, and how it was aborted."""

    def __init__(self, remaining: float | None = None, code: grpc.StatusCode | None = None) -> None:
        self._remaining = remaining
        self._code = code

    def time_remaining(self) -> float | None:
        return self._remaining

    def code(self) -> grpc.StatusCode | None:
        return self._code


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize(
    ("remaining", "expected"),
    [
        (-0.01, grpc.StatusCode.DEADLINE_EXCEEDED),
        (0.006, grpc.StatusCode.DEADLINE_EXCEEDED),
        (1.0, grpc.StatusCode.CANCELLED),
        (None, grpc.StatusCode.CANCELLED),
    ],
)
def test_a_call_that_had_no_time_left_has_met_its_deadline(
    kind: type[BaseException], remaining: float | None, expected: grpc.StatusCode
) -> None:
    """The caller's cancellation may be here a few milliseconds before the server's own clock is at the deadline."""
    assert code_of(kind(), Context(remaining)) is expected


def test_an_aborted_call_has_the_status_of_its_abort() -> None:
    """What else ends a call is UNKNOWN."""
    assert code_of(grpc.aio.AbortError(), Context(code=grpc.StatusCode.NOT_FOUND)) is grpc.StatusCode.NOT_FOUND
    assert code_of(RuntimeError(), Context()) is grpc.StatusCode.UNKNOWN


def test_calls_are_counted_by_how_they_end(watched: Watched) -> None:
    """Each call is counted once, with its type and status, and so are its messages and its time."""
    server, seen = watched
    execution = start(server, "sleep", "60")
    for _ in range(3):
        server.stub.Poll(api.PollRequest(exec_id=execution.exec_id))
    with pytest.raises(grpc.RpcError):
        server.stub.Poll(api.PollRequest(exec_id="unknown"))
    seen.reaches(3, "grpc_server_handled_total", **calls("Poll", "OK"), grpc_type="unary")
    seen.reaches(1, "grpc_server_handled_total", **calls("Poll", "NOT_FOUND"))
    seen.reaches(4, "grpc_server_started_total", **calls("Poll"))
    seen.reaches(4, "grpc_server_msg_received_total", **calls("Poll"))
    seen.reaches(3, "grpc_server_msg_sent_total", **calls("Poll"))
    seen.reaches(4, "grpc_server_handling_seconds_count", **calls("Poll"))
    seen.reaches(1, "grpc_server_handled_total", **calls("Exec", "OK"))


def test_streams_are_counted_when_they_end(watched: Watched) -> None:
    """A Follow is one call, with as many messages as it had; who hangs up has cancelled it."""
    server, seen = watched
    execution = start(server, "sleep", "60")
    stream = server.stub.Follow(api.FollowRequest(exec_id=execution.exec_id))
    next(stream)
    seen.reaches(1, "rexec_followers")
    seen.reaches(1, "grpc_server_msg_sent_total", **calls("Follow"), grpc_type="server_stream")
    assert seen.value("grpc_server_handled_total", **calls("Follow", "CANCELLED")) is None
    stream.cancel()
    seen.reaches(1, "grpc_server_handled_total", **calls("Follow", "CANCELLED"))
    seen.reaches(0, "rexec_followers")


def test_a_deadline_is_no_cancellation(watched: Watched) -> None:
    """A call that ends because its time is over is counted as DEADLINE_EXCEEDED, whoever noticed it first.

    Not each of them: where it took long to arrive, its time is not over here when its caller gives up.
    """
    server, seen = watched
    execution = start(server, "sleep", "60")
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as refusal:
            list(server.stub.Follow(api.FollowRequest(exec_id=execution.exec_id), timeout=1.0))
        assert refusal.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    seen.reaches(5, "grpc_server_handling_seconds_count", **calls("Follow"))
    assert seen.value("grpc_server_handled_total", **calls("Follow", "DEADLINE_EXCEEDED"))


def test_made_up_methods_are_one_series(watched: Watched) -> None:
    """Whoever calls what is not there does not make a series for each name."""
    server, seen = watched
    with grpc.insecure_channel(server.target) as channel:
        for name in ("/made.Up/One", "/made.Up/Two"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(name)(b"", timeout=30)
    seen.reaches(2, "grpc_server_handled_total", grpc_service="unknown", grpc_code="UNIMPLEMENTED")
    assert "made" not in seen.get("/metrics").text


def test_services_of_others_are_counted_too(watched: Watched) -> None:
    """Health and reflection are calls like any other."""
    server, seen = watched
    with grpc.insecure_channel(server.target) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=30)
    assert "rexec.v1.ExecutionService" in {service.name for service in answer.list_services_response.service}
    seen.reaches(1, "grpc_server_handled_total", grpc_method="Check", grpc_code="OK")
    of_reflection = {"grpc_method": "ServerReflectionInfo", "grpc_type": "bidi_stream"}
    seen.reaches(1, "grpc_server_handled_total", **of_reflection, grpc_code="OK")
    seen.reaches(1, "grpc_server_msg_received_total", **of_reflection)
    seen.reaches(1, "grpc_server_msg_sent_total", **of_reflection)


def test_executions_are_counted_by_state_and_reason(watched: Watched) -> None:
    """What runs, what has ended and why, how much it said, and what was dropped of that."""
    server, seen = watched
    running = start(server, "sleep", "60")
    run(server, "sh", "-c", "printf out; printf error >&2")
    run(server, "/no/such/program")
    seen.reaches(1, "rexec_executions", state="RUNNING")
    seen.reaches(1, "rexec_executions", state="SUCCEEDED")
    seen.reaches(1, "rexec_executions", state="FAILED")
    seen.reaches(0, "rexec_executions", state="LOST")
    seen.reaches(1, "rexec_executions_ended_total", reason="EXITED")
    seen.reaches(1, "rexec_executions_ended_total", reason="START_FAILED")
    seen.reaches(3, "rexec_output_bytes_total", channel="STDOUT")
    seen.reaches(5, "rexec_output_bytes_total", channel="STDERR")
    seen.reaches(3, "rexec_spawn_seconds_count")
    server.stub.Cancel(api.CancelRequest(exec_id=running.exec_id))
    assert ended(server, running.exec_id, within=60).reason == pb.REASON_CANCELLED
    seen.reaches(1, "rexec_executions_ended_total", reason="CANCELLED")
    seen.reaches(0, "rexec_executions", state="RUNNING")


def test_what_a_limit_dropped_is_counted(watched: Watched) -> None:
    """Gaps are in a counter of their own, to the byte as Poll tells them."""
    server, seen = watched
    request = api.ExecRequest(arguments=["sh", "-c", "seq 1 200000"])
    request.output.max_bytes = 64 * 1024
    request.wait.FromSeconds(50)
    execution = server.stub.Exec(request, timeout=60).execution
    dropped = sum(total.bytes_dropped for total in execution.totals)
    assert dropped > 0
    seen.reaches(dropped, "rexec_gap_bytes_total")


def test_after_a_restart_counters_begin_at_zero_and_gauges_are_right(watched: Watched) -> None:
    """kill -9 of the server: what runs is there again at once, and its end is counted by the server that sees it."""
    server, seen = watched
    running = start(server, "sleep", "600")
    run(server, "true")
    seen.reaches(1, "rexec_executions_ended_total", reason="EXITED")
    server.restart()
    seen.reaches(1, "rexec_executions", state="RUNNING")
    seen.reaches(1, "rexec_executions", state="SUCCEEDED")
    seen.reaches(0, "rexec_executions_ended_total", reason="EXITED")
    server.stub.Cancel(api.CancelRequest(exec_id=running.exec_id), wait_for_ready=True, timeout=60)
    seen.reaches(1, "rexec_executions_ended_total", reason="CANCELLED")
    seen.reaches(0, "rexec_executions", state="RUNNING")


def test_the_process_and_the_version_are_told(watched: Watched) -> None:
    """Memory, descriptors and CPU of the server, and which version it is."""
    server, seen = watched
    version = server.stub.GetServerInfo(api.GetServerInfoRequest()).version
    seen.reaches(1, "rexec_build_info", version=version)
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"):
        assert seen.value(name), name


def test_without_metrics_nothing_listens(start_server: Callable[..., Server]) -> None:
    """They are off unless an address is given."""
    server = start_server()
    assert "metrics are at" not in server.log
