"""From a gRPC status to the exception that callers catch: one table, and the rich details."""

from __future__ import annotations

from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rexec_client import errors

BY_CODE: dict[str, type[errors.CallError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "NOT_FOUND": errors.NotFoundError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "FAILED_PRECONDITION": errors.PreconditionError,
    "OUT_OF_RANGE": errors.OutOfRangeError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "UNAUTHENTICATED": errors.UnauthenticatedError,
    "RESOURCE_EXHAUSTED": errors.ResourceExhaustedError,
    "UNAVAILABLE": errors.UnavailableError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
}

# What a connection, a proxy or a restarting server does to a call. Everything else is an answer.
CUTS = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED", "DEADLINE_EXCEEDED"})

# A reason is more exact than its code, and wins.
BY_REASON: dict[tuple[str, str], type[errors.CallError]] = {
    ("FAILED_PRECONDITION", "BUSY"): errors.BusyError,
    ("FAILED_PRECONDITION", "EXEC_ID_USED"): errors.ExecIdUsedError,
}

DetailT = TypeVar("DetailT", bound=Message)


def call_error(error: grpc.RpcError) -> errors.CallError:
    """The exception for a failed call, with whatever rich details the server attached."""
    # Every RpcError that a call raises is the Call, or carries its methods; only the type does not say so.
    call = cast(grpc.Call, error)
    code, status = call.code().name, _status(call)
    info = _detail(status, error_details_pb2.ErrorInfo)
    kind = BY_REASON.get((code, info.reason)) or BY_CODE.get(code, errors.CallError)
    return kind(
        call.details() or code,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations={v.field: v.description for v in _detail(status, error_details_pb2.BadRequest).field_violations},
        retry_after=_retry_after(status),
    )


def is_unanswered(error: errors.CallError) -> bool:
    """True when another try may succeed: the server is away or silent, or the connection broke in mid-call.

    A code that may be both an answer and a broken connection is an answer when it gives a reason.
    """
    if isinstance(error, errors.UnavailableError | errors.DeadlineError):
        return not is_handshake_fault(error)  # that is no restart: it would be the same in a minute
    return error.code in CUTS and not error.reason


def is_handshake_fault(error: errors.CallError) -> bool:
    """True when the two sides do not agree about TLS. A server that only went away does not look like this."""
    return error.code == "UNAVAILABLE" and "SSL_ERROR_SSL" in str(error)


def _status(call: grpc.Call) -> status_pb2.Status:
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except ValueError:  # a proxy changed code or message: the details no longer belong to them
        return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[DetailT]) -> DetailT:
    """The first detail of this kind, or an empty one."""
    found = kind()
    next((True for packed in status.details if packed.Unpack(found)), False)
    return found


def _retry_after(status: status_pb2.Status) -> float | None:
    info = _detail(status, error_details_pb2.RetryInfo)
    return info.retry_delay.ToTimedelta().total_seconds() if info.HasField("retry_delay") else None
