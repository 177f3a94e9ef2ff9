"""What can be in no request is refused by the name of its field; and no request at all breaks the server."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import outcome, poll, refused, run, start
from tests.servers import Server

SHARES_SERVER = True

DURATIONS = ["timeout", "kill_grace", "drain_timeout", "unattended_timeout", "retention", "wait"]
NEVER = [
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE,
]  # fmt: skip
NEGATIVE, MIXED, HUGE = Duration(seconds=-1), Duration(seconds=1, nanos=-1), Duration(seconds=2**62)

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("arguments", {}),
    ("arguments", {"arguments": ["true"], "shell": "true"}),
    ("arguments[0]", {"arguments": [""]}),
    ("arguments[1]", {"arguments": ["echo", "a\0b"]}),
    ("shell", {"shell": "echo \0"}),
    ("exec_id", {"exec_id": ".dot"}),
    ("exec_id", {"exec_id": "a/b"}),
    ("exec_id", {"exec_id": "a\n"}),
    ("exec_id", {"exec_id": "ü"}),
    ("exec_id", {"exec_id": "x" * 129}),
    ("working_directory", {"working_directory": "relative"}),
    ("working_directory", {"working_directory": "/a\0"}),
    ("environment_variables", {"environment_variables": {"": "x"}}),
    ("environment_variables", {"environment_variables": {"A=B": "x"}}),
    ("environment_variables", {"environment_variables": {"A\0": "x"}}),
    ("environment_variables['A']", {"environment_variables": {"A": "\0"}}),
    ("initial_stdin", {"initial_stdin": b"x"}),
    ("stdin_mode", {"stdin_mode": 9}),
    ("stderr_mode", {"stderr_mode": 9}),
    ("leftovers", {"leftovers": -1}),
    ("output.overflow", {"output": api.OutputLimit(overflow=9)}),  # type: ignore[arg-type]
    ("labels", {"labels": {"UPPER": "x"}}),
    ("labels", {"labels": {"": "x"}}),
    ("labels", {"labels": {"x" * 64: "x"}}),
    ("labels", {"labels": {"x": "y" * 256}}),
    ("labels", {"labels": {f"l{n}": "" for n in range(33)}}),
    ("exclusive_group", {"exclusive_group": "a\0"}),
    ("exclusive_group", {"exclusive_group": "x" * 256}),
    *((name, {name: value}) for name in DURATIONS for value in (NEGATIVE, MIXED, HUGE)),
    ("timeout", {"timeout": Duration(nanos=2_000_000_000)}),
]


def test_each_wrong_field_is_named(server: Server) -> None:
    """Every field that can be wrong is refused with its name, and nothing was started."""
    for name, fields in WRONG:
        program = {} if name == "shell" or "arguments" in name else {"arguments": ["true"]}
        request = api.ExecRequest(**program | fields)
        assert refused(lambda request=request: server.stub.Exec(request), "INVALID_ARGUMENT").fields == [name], fields
    assert not server.stub.List(api.ListRequest()).executions


def test_the_longest_that_is_allowed(server: Server) -> None:
    """What is exactly at a limit is taken."""
    execution = run(
        server, "true", exec_id="x" * 128, labels={f"{n:063d}": "v" * 255 for n in range(32)},
        exclusive_group="g" * 255, environment_variables={"A B": "", "ü": "ü"},
    ).execution  # fmt: skip
    assert execution.exit_code == 0
    assert len(execution.labels) == 32


@pytest.mark.parametrize("field", ["max_bytes", "wait", "channels", "exec_id"])
def test_poll_and_follow_name_their_fields(server: Server, field: str) -> None:
    """Each field of a reader's request that can be wrong is named."""
    start(server, "true", exec_id="x")
    fields: dict[str, Any] = {
        "max_bytes": {"max_bytes": 2**20 + 1},
        "wait": {"wait": Duration(seconds=-1)},
        "channels": {"channels": [7]},
        "exec_id": {"exec_id": ""},
    }[field]
    request = api.PollRequest(**{"exec_id": "x", **fields})
    assert refused(lambda: server.stub.Poll(request), "INVALID_ARGUMENT").fields == [field]
    if field in ("channels", "exec_id"):
        following = api.FollowRequest(**{"exec_id": "x", **fields})
        assert refused(lambda: list(server.stub.Follow(following)), "INVALID_ARGUMENT").fields == [field]


@pytest.mark.parametrize("interval", [Duration(), Duration(nanos=999_999_999), Duration(seconds=61)])
def test_a_heartbeat_that_is_too_short_or_long(server: Server, interval: Duration) -> None:
    """The interval is 1 s to 60 s."""
    start(server, "true", exec_id="x")
    request = api.FollowRequest(exec_id="x", heartbeat_interval=interval)
    assert refused(lambda: list(server.stub.Follow(request)), "INVALID_ARGUMENT").fields == ["heartbeat_interval"]


def test_signal_and_cancel_name_their_fields(server: Server) -> None:
    """An unknown scope and an impossible grace are named."""
    start(server, "sleep", "30", exec_id="fields")
    request = api.SignalRequest(exec_id="fields", signal=15, scope=9)  # type: ignore[arg-type]
    assert refused(lambda: server.stub.Signal(request), "INVALID_ARGUMENT").fields == ["scope"]
    for grace in (NEGATIVE, HUGE, MIXED):
        cancel = api.CancelRequest(exec_id="fields", kill_grace=grace)
        assert refused(lambda cancel=cancel: server.stub.Cancel(cancel), "INVALID_ARGUMENT").fields == ["kill_grace"]
    assert poll(server, "fields").execution.reason == 0


def test_what_is_too_large_is_refused_at_the_door(server: Server) -> None:
    """A message beyond 4 MiB is refused with RESOURCE_EXHAUSTED, and one that is nearly as large is served."""
    big = api.ExecRequest(arguments=["cat"], stdin_mode=api.STDIN_MODE_BYTES, initial_stdin=b"x" * 4_300_000)
    refused(lambda: server.stub.Exec(big), "RESOURCE_EXHAUSTED")
    big.initial_stdin = b"x" * 4_100_000
    big.wait.seconds = 20
    assert server.stub.Exec(big).execution.totals[0].bytes_produced == 4_100_000


@pytest.mark.parametrize("seconds", [0.000001, 3_000_000_000])
def test_extreme_durations_are_durations(server: Server, seconds: float) -> None:
    """The shortest and the longest times do what they say."""
    fields = dict.fromkeys(("kill_grace", "drain_timeout", "retention"), seconds)
    answer = run(server, "echo", "hi", timeout=max(seconds, 5), unattended_timeout=max(seconds, 5), **fields)
    assert answer.execution.state == pb.STATE_SUCCEEDED, answer.execution
    assert [chunk.data for chunk in answer.chunks] == [b"hi\n"]


def test_extreme_limits_end_honestly(server: Server) -> None:
    """A limit that nothing can live under is a failure to start, or the system's own ending of the command."""
    for name in ("memory_bytes", "cpu_seconds", "processes", "open_files", "file_bytes"):
        for size in (1, 2**32 - 1) if name in ("processes", "open_files") else (1, 2**32 - 1, 2**63, 2**64 - 1):
            execution = run(server, "/bin/sh", "-c", "exit 5", limits=api.ResourceLimits(**{name: size})).execution
            if execution.HasField("start_error"):
                assert execution.WhichOneof("exit_status") is None
            else:
                assert execution.exit_code in (5, 127) or execution.signal, (name, size, execution)


_any_duration = st.builds(Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
_texts = st.text(max_size=20)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "exec_id": st.one_of(st.just("same"), _texts),
        "arguments": st.lists(st.one_of(st.just("true"), _texts), max_size=4),
        "shell": st.one_of(st.just("exit 1"), _texts),
        "working_directory": st.one_of(st.just("/"), _texts.map(lambda text: "/" + text)),
        "environment_variables": st.dictionaries(_texts, _texts, max_size=3),
        "stdin_mode": st.integers(-1, 4),
        "initial_stdin": st.binary(max_size=100),
        "stderr_mode": st.integers(-1, 3),
        **{name: _any_duration for name in DURATIONS if name != "wait"},
        "leftovers": st.integers(-1, 3),
        "output": st.builds(api.OutputLimit, max_bytes=st.integers(0, 2**64 - 1), overflow=st.integers(-1, 3)),
        "limits": st.builds(
            api.ResourceLimits, memory_bytes=st.integers(0, 2**64 - 1), open_files=st.integers(0, 2**32 - 1)
        ),
        "labels": st.dictionaries(_texts, _texts, max_size=3),
        "exclusive_group": _texts,
        "text": st.booleans(),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields=_requests)
def test_no_request_is_an_internal_error(server: Server, fields: dict[str, Any]) -> None:
    """Whatever is asked, the answer is an execution or a status that says what was wrong."""
    request = api.ExecRequest(**fields)
    assert outcome(lambda: server.stub.Exec(request, timeout=10)) not in NEVER
    for execution in server.stub.List(api.ListRequest(states=[pb.STATE_RUNNING])).executions:
        server.stub.Cancel(api.CancelRequest(exec_id=execution.exec_id, kill_grace=Duration()), timeout=10)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200), method=st.sampled_from(["Exec", "Poll", "List", "Signal", "Cancel", "WriteStdin"]))
def test_no_bytes_break_the_server(server: Server, data: bytes, method: str) -> None:
    """Bytes that are no message, or any message, are answered, and the server goes on."""
    with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(f"/rexec.v1.ExecutionService/{method}")
        assert outcome(lambda: call(data, timeout=10)) not in NEVER
