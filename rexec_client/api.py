"""Every public name of the client, in one place. `import rexec_client` gives them without importing gRPC at once."""

from __future__ import annotations

from rexec.v1.execution_pb2 import Execution, Reason, State
from rexec.v1.execution_service_pb2 import ResourceLimits

from rexec_client._async.client import AsyncClient
from rexec_client._async.handle import AsyncExecutionHandle
from rexec_client._async.output import AsyncOutputStream
from rexec_client._sync.client import Client
from rexec_client._sync.handle import ExecutionHandle
from rexec_client._sync.output import OutputStream
from rexec_client.credentials import Credentials, bearer
from rexec_client.errors import (
    AlreadyExistsError,
    BusyError,
    CallError,
    CommandFailedError,
    CommandNotStartedError,
    CommandTimeoutError,
    CredentialsError,
    DeadlineError,
    ExecIdUsedError,
    IncompleteOutputError,
    InvalidRequestError,
    LostError,
    NotFoundError,
    OutOfRangeError,
    OutputGapError,
    OutputLimitError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
    ResultError,
    RexecError,
    StdinClosedError,
    UnauthenticatedError,
    UnavailableError,
    WaitTimeoutError,
)
from rexec_client.executions import is_ended
from rexec_client.lines import LineSplitter
from rexec_client.output import Channel, Gap, OutputChunk
from rexec_client.polls import PollResult
from rexec_client.results import CompletedExecution
from rexec_client.tokens import TokenCredentials, key_file

__all__ = [
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncExecutionHandle",
    "AsyncOutputStream",
    "BusyError",
    "CallError",
    "Channel",
    "Client",
    "CommandFailedError",
    "CommandNotStartedError",
    "CommandTimeoutError",
    "CompletedExecution",
    "Credentials",
    "CredentialsError",
    "DeadlineError",
    "ExecIdUsedError",
    "Execution",
    "ExecutionHandle",
    "Gap",
    "IncompleteOutputError",
    "InvalidRequestError",
    "LineSplitter",
    "LostError",
    "NotFoundError",
    "OutOfRangeError",
    "OutputChunk",
    "OutputGapError",
    "OutputLimitError",
    "OutputStream",
    "PermissionDeniedError",
    "PollResult",
    "PreconditionError",
    "Reason",
    "ResourceExhaustedError",
    "ResourceLimits",
    "ResultError",
    "RexecError",
    "State",
    "StdinClosedError",
    "TokenCredentials",
    "UnauthenticatedError",
    "UnavailableError",
    "WaitTimeoutError",
    "bearer",
    "is_ended",
    "key_file",
]
