"""What the tests of the wire contract do with a server, over and over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.servers import Server
from tests.waiting import eventually

FINAL = (pb.STATE_SUCCEEDED, pb.STATE_FAILED, pb.STATE_LOST)
START_SERVER = Callable[..., Server]


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def request(*arguments: str, **fields: Any) -> api.ExecRequest:
    for name in ("timeout", "kill_grace", "drain_timeout", "unattended_timeout", "retention", "wait"):
        if isinstance(fields.get(name), (int, float)):
            fields[name] = duration(fields[name])
    return api.ExecRequest(arguments=arguments, **fields)


def start(server: Server, *arguments: str, caller: str = "", **fields: Any) -> pb.Execution:
    """Starts a command, and returns it as it is then."""
    return server.stub.Exec(request(*arguments, **fields), metadata=bearer(caller), timeout=60).execution


def run(server: Server, *arguments: str, **fields: Any) -> api.ExecResponse:
    """Runs a command to its end."""
    answer = server.stub.Exec(request(*arguments, **{"wait": 30, **fields}), timeout=40)
    assert answer.execution.state in FINAL, answer.execution
    return answer


def poll(server: Server, exec_id: str, **fields: Any) -> api.PollResponse:
    if isinstance(fields.get("wait"), (int, float)):
        fields["wait"] = duration(fields["wait"])
    return server.stub.Poll(api.PollRequest(exec_id=exec_id, **fields), timeout=70)


def listed(server: Server) -> list[str]:
    """The ids of the caller's executions, newest first."""
    return [execution.exec_id for execution in server.stub.List(api.ListRequest()).executions]


def ended(server: Server, exec_id: str, within: float = 60.0, caller: str = "") -> pb.Execution:
    """Waits for an execution's end."""

    def look() -> pb.Execution | None:
        execution = poll(server, exec_id, tail_bytes=0, caller=caller).execution
        return execution if execution.state in FINAL else None

    execution = eventually(look, within)
    assert execution is not None
    return execution


def output(server: Server, exec_id: str, **fields: Any) -> bytes:
    """All that is kept of an ended execution, read page by page."""
    data, offset = b"", 0
    while True:
        answer = poll(server, exec_id, offset=offset, **fields)
        data += joined(answer.chunks)
        offset = answer.next_offset
        if answer.eof:
            return data


def joined(chunks: Iterable[pb.OutputChunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def shown(server: Server, exec_id: str, text: bytes, within: float = 60.0) -> None:
    """Waits until the command has written this."""
    eventually(lambda: text in joined(poll(server, exec_id, offset=0).chunks), within)


def follow(server: Server, exec_id: str, timeout: float | None = 200, **fields: Any) -> Any:
    if isinstance(fields.get("heartbeat_interval"), (int, float)):
        fields["heartbeat_interval"] = duration(fields["heartbeat_interval"])
    return server.stub.Follow(api.FollowRequest(exec_id=exec_id, **fields), timeout=timeout)


def bearer(caller: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {caller}"),) if caller else ()


class Refusal(NamedTuple):
    """How a call failed."""

    code: grpc.StatusCode
    message: str
    reason: str
    facts: dict[str, str]
    fields: list[str]
    details: dict[str, Any]


def refusal(error: grpc.RpcError) -> Refusal:
    """A failed call with its rich details."""
    status = rpc_status.from_call(error)
    found: dict[str, Any] = {}
    for any_ in status.details if status else ():
        for kind in ("ErrorInfo", "BadRequest", "QuotaFailure", "RetryInfo"):
            message = getattr(error_details_pb2, kind)()
            if any_.Unpack(message):
                found[kind] = message
    info = found.get("ErrorInfo", error_details_pb2.ErrorInfo())
    violations = found.get("BadRequest", error_details_pb2.BadRequest()).field_violations
    return Refusal(
        error.code(), error.details(), info.reason, dict(info.metadata), [v.field for v in violations], found
    )


def refused(call: Callable[[], Any], code: str, reason: str = "") -> Refusal:
    """Asserts that a call fails with this status and, if given, this reason."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    answer = refusal(caught.value)
    assert answer.code == grpc.StatusCode[code], answer
    assert not reason or answer.reason == reason, answer
    return answer


def outcome(call: Callable[[], Any]) -> grpc.StatusCode:
    """How a call went, OK or not."""
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def check_totals(execution: pb.Execution) -> None:
    """Rule 6, as far as one reply shows it."""
    produced = sum(total.bytes_produced for total in execution.totals)
    dropped = sum(total.bytes_dropped for total in execution.totals)
    assert produced == execution.log_end_offset
    assert produced - dropped == execution.log_end_offset - execution.log_start_offset
    assert all(total.bytes_dropped <= total.bytes_produced for total in execution.totals)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def launch(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `rexec-server` with flags with which it should not stay up."""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "rexec_server", *flags], env=environment, capture_output=True, text=True, timeout=60
    )
