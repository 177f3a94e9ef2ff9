"""Everything that rexec's client raises. Importing this imports no gRPC.

RexecError
├── CallError                   a call did not succeed; what the command does is another question
│   ├── InvalidRequestError     the request breaks a rule; `violations` says which fields
│   ├── NotFoundError           no such execution, or another caller's
│   ├── AlreadyExistsError      the exec_id belongs to another request; reason TOKEN_USED: the token has started another
│   ├── PreconditionError       not in the state that this needs
│   │   ├── BusyError           the exclusive group runs something already
│   │   ├── ExecIdUsedError     the exec_id was deleted or expired
│   │   └── StdinClosedError    standard input takes nothing more
│   ├── OutOfRangeError         an offset beyond the end
│   ├── PermissionDeniedError   not allowed
│   ├── UnauthenticatedError    no credential, or not a good one
│   ├── ResourceExhaustedError  a limit is reached; reason RATE_LIMITED: too often. `retry_after` says when to try again
│   ├── UnavailableError        the server is not there, starting, or draining
│   └── DeadlineError           no answer in time
├── ResultError                 the command was accepted, and its result is not what was asked for
│   ├── CommandFailedError      it ended with another code than 0, or by a signal (only with check=True)
│   ├── CommandTimeoutError     it was ended because its timeout passed
│   ├── CommandNotStartedError  the system could not start it; `errno`, `message`
│   └── LostError               what became of it cannot be known
├── IncompleteOutputError       `missing` bytes of output did not come
│   ├── OutputGapError          a range of the output is no longer kept
│   └── OutputLimitError        more than `run` collects: the command was cancelled. A ResultError too
├── WaitTimeoutError            wait(timeout=) passed; the command goes on
└── CredentialsError            a key or certificate cannot be used; nothing was sent
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexec.v1.execution_pb2 import Execution

    from rexec_client.output import Gap
    from rexec_client.results import Arguments, CompletedExecution


class RexecError(Exception):
    """The root. `exec_id` names the execution that it is about, when it is about one."""

    exec_id: str | None = None


class CallError(RexecError):
    """A call failed. A code without a class of its own (INTERNAL, UNKNOWN, …) is this one itself.

    Attributes:
        code: name of the gRPC status, such as "NOT_FOUND".
        reason: machine-readable reason from the server, such as "BUSY"; empty when it gave none.
        metadata: facts that the server added to the reason.
        violations: field -> what is wrong with it.
        retry_after: seconds after which the server suggests another try, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = dict(violations or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        message = super().__str__() or self.code
        wrong = "; ".join(f"{field}: {what}" for field, what in self.violations.items() if what not in message)
        return f"{message} ({wrong})" if wrong else message


class InvalidRequestError(CallError):
    """The request breaks a rule: `violations` maps each field to what is wrong with it."""


class NotFoundError(CallError):
    """There is no such execution, or it is another caller's: the two look alike."""


class AlreadyExistsError(CallError):
    """This exec_id was accepted before, with another request, or with input of its own (more than 1 MiB).

    Reason TOKEN_USED: this token was; make a new one.
    """


class PreconditionError(CallError):
    """The execution is not in the state that this needs, such as Delete while it runs."""


class BusyError(PreconditionError):
    """The exclusive group has an unfinished execution."""


class ExecIdUsedError(PreconditionError):
    """The exec_id was used by an execution that has been deleted or has expired."""


class StdinClosedError(PreconditionError):
    """Standard input takes nothing more: it was closed, was never open, or the command has ended."""

    @property
    def command_waits(self) -> bool:
        """True when the command has not seen the end of its input all the same: it may wait for more for ever."""
        return self.metadata.get("open") == "true"


class OutOfRangeError(CallError):
    """An offset beyond the end of the output, or of what standard input has accepted."""


class PermissionDeniedError(CallError):
    """This caller may not do this."""


class UnauthenticatedError(CallError):
    """The call carried no credential, or one that is not good."""


class ResourceExhaustedError(CallError):
    """A limit of the server is reached; `retry_after` (seconds) says when to try again, if the server knows.

    Reason EXHAUSTED: too much at once. Reason RATE_LIMITED: too often lately.
    """


class UnavailableError(CallError):
    """The server cannot be reached, is starting, or is draining."""


class DeadlineError(CallError):
    """No answer came in time."""


class WaitTimeoutError(RexecError, TimeoutError):
    """The timeout of `wait` passed. The command goes on: this is not its own timeout."""


class CredentialsError(RexecError, ValueError):
    """A key, a certificate or a setting about them cannot be used; the message says what would be right."""


class ResultError(RexecError):
    """The command was accepted, but its result is not what was asked for.

    Attributes:
        completed: what is known of it, output included.
    """

    def __init__(self, completed: CompletedExecution) -> None:
        super().__init__(completed)
        self.completed = completed
        self.exec_id = completed.exec_id

    @property
    def cmd(self) -> Arguments:
        """The arguments or the shell line, named as in `subprocess.CalledProcessError`."""
        return self.completed.args

    @property
    def execution(self) -> Execution:
        return self.completed.execution

    @property
    def stdout(self) -> bytes:
        """Standard output as far as it came."""
        return self.completed.stdout

    @property
    def stderr(self) -> bytes:
        """Standard error as far as it came."""
        return self.completed.stderr

    @property
    def returncode(self) -> int | None:
        """As in subprocess: the exit code, or minus the signal's number; None when there is no wait status."""
        return self.completed.returncode

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or None."""
        return self.completed.signal

    def __str__(self) -> str:
        missing = sum(gap.size for gap in self.completed.gaps)
        short = f"; {missing} bytes of its output are no longer kept" if missing else ""
        return f"command {self.cmd!r} {self._what()}{short}"

    def _what(self) -> str:
        return "has no result"


class CommandFailedError(ResultError):
    """It ended with another exit code than 0, or by a signal: the `subprocess.CalledProcessError` of rexec."""

    def _what(self) -> str:
        if self.signal is not None:
            return f"died of signal {self.signal} ({self.completed.reason})"
        return f"returned exit code {self.returncode} ({self.completed.reason})"


class CommandTimeoutError(ResultError):
    """It was ended because its timeout passed: the `subprocess.TimeoutExpired` of rexec."""

    def _what(self) -> str:
        return "was ended because its timeout passed"


class CommandNotStartedError(ResultError):
    """The system could not start it.

    Attributes:
        errno: the system's name of the error, such as "ENOENT".
        message: what was tried and what failed.
    """

    @property
    def errno(self) -> str:
        return self.execution.start_error.errno

    @property
    def message(self) -> str:
        return self.execution.start_error.message

    def _what(self) -> str:
        return f"could not be started: {self.message or self.errno}"


class LostError(ResultError):
    """What became of the command cannot be known; whatever output there is, is attached."""

    def _what(self) -> str:
        return "is lost: what became of it cannot be known"


class IncompleteOutputError(RexecError):
    """Output is missing.

    Attributes:
        missing: how many bytes.
        completed: the result without them, where there is one.
    """

    def __init__(self, missing: int, message: str = "", completed: CompletedExecution | None = None) -> None:
        super().__init__(message or f"{missing} bytes of output are missing")
        self.missing = missing
        self.completed = completed
        self.exec_id = completed.exec_id if completed else None


class OutputGapError(IncompleteOutputError):
    """A range of the output is no longer kept. Iterating on goes on after it.

    Attributes:
        gap: the range.
    """

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap.size, f"{gap.size} bytes of output, {gap.start} to {gap.end}, are no longer kept")
        self.gap = gap


class OutputLimitError(ResultError, IncompleteOutputError):  # type: ignore[misc]  # `completed` is always there
    """It wrote more than `run` collects, and was cancelled. `stdout` and `stderr` have what was collected.

    Attributes:
        limit: how many bytes `run` collects: its max_output, or 1 GiB.
        missing: how many more were written until it was cancelled.
        failure: the error of the Cancel, when that failed and the command may go on; otherwise None.
    """

    def __init__(self, completed: CompletedExecution, limit: int, failure: CallError | None = None) -> None:
        RexecError.__init__(self, completed)  # of its two parents each wants something else
        self.completed = completed
        self.exec_id = completed.exec_id
        self.limit = limit
        self.missing = max(completed.execution.log_end_offset - limit, 1)
        self.failure = failure

    def _what(self) -> str:
        outcome = f"it could not be cancelled: {self.failure}" if self.failure else "it was cancelled"
        return f"wrote more than the {self.limit} bytes that run() collects; {outcome}. See max_output="
