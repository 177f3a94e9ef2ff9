"""The elements of a request are counted before anything is done with them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.command import MAX_ARGUMENTS, MAX_LABELS, MAX_VARIABLES
from rexec_server.rpc.decode import MAX_BYTES, MAX_ELEMENTS, MAX_FIELDS, MAX_NAMED
from tests.rpc.calls import refused, run, start
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True

SERVICE = api.DESCRIPTOR.services_by_name["ExecutionService"]
# A field that no request has, as a number: tag and value.
UNKNOWN = b"\xc0\x19\x01"
MANY = {f"n{number}": "" for number in range(100_000)}


def call(server: Server, path: str, data: bytes) -> Any:
    """Call with these bytes as the request, whatever they are."""
    with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        return channel.unary_unary(path)(data, timeout=60)


def ours(server: Server, name: str, data: bytes) -> Callable[[], Any]:
    return lambda: call(server, f"/{SERVICE.full_name}/{name}", data)


def test_each_repeated_field_has_a_limit() -> None:
    """A field that is added to a request, and may be there any number of times, needs a number here."""
    seen, found, waiting = set(), set(), [method.input_type for method in SERVICE.methods]
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        found |= {(message.name, field.name) for field in message.fields if field.is_repeated}
        waiting += [field.message_type for field in message.fields if _nested(field)]
    assert found == {(message, field) for message, fields in MAX_ELEMENTS.items() for field in fields}


def _nested(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated


@pytest.mark.parametrize(
    ("name", "request_", "field", "count", "most"),
    [
        ("Exec", api.ExecRequest(arguments=["x"] * 200_000), "arguments", 200_000, MAX_ARGUMENTS),
        ("Exec", api.ExecRequest(arguments=["x"] * (MAX_ARGUMENTS + 1)), "arguments", MAX_ARGUMENTS + 1, MAX_ARGUMENTS),
        ("Exec", api.ExecRequest(environment_variables=MANY), "environment_variables", MAX_FIELDS + 1, MAX_VARIABLES),
        ("Exec", api.ExecRequest(labels=MANY), "labels", MAX_FIELDS + 1, MAX_LABELS),
        ("List", api.ListRequest(states=[1] * 200), "states", 200, MAX_NAMED),
        ("List", api.ListRequest(labels=dict(itertools.islice(MANY.items(), 200))), "labels", 200, MAX_LABELS),
        ("Poll", api.PollRequest(exec_id="x", channels=[1] * 200), "channels", 200, MAX_NAMED),
        ("Follow", api.FollowRequest(exec_id="x", channels=[1] * 200), "channels", 200, MAX_NAMED),
    ],
)
def test_too_many_elements(server: Server, name: str, request_: Any, field: str, count: int, most: int) -> None:
    """The field is named, with how many there are, and how many may be."""
    found = refused(ours(server, name, request_.SerializeToString()), "INVALID_ARGUMENT")
    assert found.fields == [field]
    assert re.search(rf"\b{count} elements( or more)?; at most {most} are taken", found.message)


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
def test_a_million_unknown_fields(server: Server, method: str) -> None:
    """They are refused as what they are: too many, or too large where there is nothing to be large."""
    found = refused(ours(server, method, UNKNOWN * 1_000_000), "INVALID_ARGUMENT")
    assert found.fields == ["request"]
    assert (
        f"at most {MAX_BYTES} are taken" in found.message or "field 408, which this call does not have" in found.message
    )


def test_health_takes_no_large_requests(server: Server) -> None:
    """Its calls need no credential: they are small, or refused."""
    for path in ("Check", "Watch"):
        request = health_pb2.HealthCheckRequest(service="x" * 100_000).SerializeToString()
        assert refused(lambda: call(server, f"/grpc.health.v1.Health/{path}", request), "INVALID_ARGUMENT").fields  # noqa: B023


def test_reflection_takes_no_large_requests(server: Server) -> None:
    """A stream of requests is looked at one by one."""

    def requests() -> Iterator[bytes]:
        yield reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        yield UNKNOWN * 100_000

    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        assert refused(lambda: list(channel.stream_stream(path)(requests(), timeout=60)), "INVALID_ARGUMENT").fields


def test_as_many_as_may_be(server: Server) -> None:
    """Arguments and variables at their limits are a command like any other, and come back as they were given."""
    arguments = ["true", *(str(number) for number in range(MAX_ARGUMENTS - 1))]
    variables = {f"V{number}": "v" for number in range(MAX_VARIABLES)}
    execution = run(server, *arguments, environment_variables=variables).execution
    assert execution.exit_code == 0
    assert list(execution.arguments) == arguments
    assert sorted(execution.environment_names) == sorted(variables)


def test_the_memory_of_what_was_refused_comes_back(own_server: Server) -> None:
    """Requests of four megabytes, all refused, leave nothing behind."""
    start(own_server, "true")
    data = api.ExecRequest(arguments=["x"] * 1_300_000).SerializeToString()
    for _ in range(5):
        refused(ours(own_server, "Exec", data), "INVALID_ARGUMENT")
    before = psutil.Process(own_server.pid).memory_info().rss
    for _ in range(40):
        refused(ours(own_server, "Exec", data), "INVALID_ARGUMENT")
    eventually(lambda: psutil.Process(own_server.pid).memory_info().rss < before + 32 * 1024 * 1024)
