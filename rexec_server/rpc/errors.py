"""Core errors as gRPC statuses with details: one table, and the only place where a call is aborted."""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Iterable
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rexec_server.core import errors

_log = logging.getLogger(__name__)

DOMAIN = "rexec"

# Of descriptors; it may be better at the next try.
_RUN_OUT = (errno.EMFILE, errno.ENFILE)

_CODES: dict[type[errors.RexecError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.Precondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SlowReader: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.NotServed: grpc.StatusCode.UNIMPLEMENTED,
    errors.RexecError: grpc.StatusCode.INTERNAL,
}


def code(error: errors.RexecError) -> grpc.StatusCode:
    """The status of the nearest ancestor that the table has."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """Ends a call with the status and the details of an error; what is not ours is logged and told by its id only."""
    if isinstance(error, OSError) and error.errno in _RUN_OUT:
        error = errors.Unavailable("the server has no file descriptors left just now")
    if not isinstance(error, errors.RexecError):
        incident = uuid.uuid4().hex
        _log.error("incident %s", incident, exc_info=error)
        error = errors.RexecError(f"internal error; the server's log has it as incident {incident}")
    status = status_pb2.Status(code=code(error).value[0], message=error.message, details=_pack(_details(error)))
    wire = rpc_status.to_status(status)
    # gRPC keeps the exception by which a call is aborted, in a cycle: what its frames and those of our error hold, such
    # as a request of 4 MiB, would stay until the next full garbage collection.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    await context.abort(wire.code, wire.details, wire.trailing_metadata)
    raise AssertionError("abort returned")


def _details(error: errors.RexecError) -> Iterable[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_facts(error))
    match error:
        case errors.InvalidRequest():
            violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.description)
            yield error_details_pb2.BadRequest(field_violations=[violation])
        case errors.Exhausted():
            violation_ = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=error.message)
            yield error_details_pb2.QuotaFailure(violations=[violation_])
            delay = Duration()
            delay.FromNanoseconds(int(error.retry_after * 1e9))
            yield error_details_pb2.RetryInfo(retry_delay=delay)


def _facts(error: errors.RexecError) -> dict[str, str]:
    """What a program may need to go on."""
    match error:
        case errors.InvalidRequest():
            return error.facts
        case errors.OutOfRange():
            return {"offset": str(error.offset), "end": str(error.end), "bytes_written": str(error.end)}
        case errors.StdinClosed(still_open=True):
            return {"open": "true"}
        case errors.SlowReader():
            return {"bytes_written": str(error.bytes_written)}
    return {}


def _pack(messages: Iterable[Message]) -> list[any_pb2.Any]:
    packed = []
    for message in messages:
        wrapped = any_pb2.Any()
        wrapped.Pack(message)
        packed.append(wrapped)
    return packed
