"""Faults of a request, as facts; which status a protocol gives them is the protocol's business.

RexecError
├── InvalidRequest         a field has a value that cannot be
├── NotFound               unknown, or another caller's: the two look alike
├── NotAllowed             the caller may not do this
├── Conflict               the id is taken by another request
│   └── TokenUsed          the token has started another execution
├── Precondition           the execution or the id is in a state that forbids it
│   ├── ExecIdUsed
│   ├── Busy
│   ├── AlreadyEnded
│   ├── StillRunning
│   ├── NothingHeld
│   ├── StdinClosed
│   ├── WriterForgotten
│   └── WriterUnsupported
├── OutOfRange             an offset beyond the end
├── NotServed              no such method
├── Exhausted              a limit is reached; later it may not be
│   └── RateLimited        too often in too short a time
└── Unavailable            the service cannot answer now
"""

from __future__ import annotations

# An error travels in the headers of an answer, for which there are some kilobytes.
_MOST_SHOWN = 140


def shown(text: str) -> str:
    """What a caller wrote, quoted, as far as an error repeats it."""
    return repr(text[:_MOST_SHOWN])


class RexecError(Exception):
    """Root of all errors that a caller is told. `reason` is for programs, the message for people."""

    reason = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(RexecError):
    """A field has a value that cannot be; the message says what would be right."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str, **facts: str) -> None:
        """facts: what a program needs that wants to ask again for what it may have."""
        super().__init__(f"{field}: {message}")
        self.field = field
        self.description = message
        self.facts = facts


class NotFound(RexecError):
    reason = "NOT_FOUND"

    def __init__(self, exec_id: str, group: str = "") -> None:
        """group: there is none in this exclusive_group, where that was asked for instead of an id."""
        super().__init__(
            f"no execution in exclusive_group {shown(group)}" if group else f"no execution {shown(exec_id)}"
        )


class NotAllowed(RexecError):
    reason = "NOT_ALLOWED"


class Unauthenticated(RexecError):
    reason = "UNAUTHENTICATED"


class Conflict(RexecError):
    """The same id was used for another request."""

    reason = "EXEC_ID_CONFLICT"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} exists and was started with another request; use a new exec_id")


class TokenUsed(Conflict):
    """A token starts one execution; it was shown again with another request."""

    reason = "TOKEN_USED"

    def __init__(self) -> None:
        RexecError.__init__(self, "this token has started another execution; make a new one for each Exec")


class Precondition(RexecError):
    reason = "FAILED_PRECONDITION"


class ExecIdUsed(Precondition):
    reason = "EXEC_ID_USED"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} ran and was deleted or has expired; use a new exec_id")


class Busy(Precondition):
    reason = "BUSY"

    def __init__(self, group: str, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} of exclusive_group {group!r} has not ended")


class AlreadyEnded(Precondition):
    reason = "ALREADY_ENDED"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} has ended")


class StillRunning(Precondition):
    reason = "STILL_RUNNING"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} has not ended; cancel it first")


class NothingHeld(Precondition):
    """The execution drops or ends at its limit, so its readers cannot hold anything."""

    reason = "NOT_OVERFLOW_WAIT"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"execution {exec_id!r} was not started with OVERFLOW_WAIT, so it holds no output")


class StdinClosed(Precondition):
    """Standard input takes nothing more. still_open: the command has not seen its end all the same."""

    reason = "STDIN_CLOSED"

    def __init__(self, message: str, still_open: bool = False) -> None:
        super().__init__(message)
        self.still_open = still_open


class WriterForgotten(Precondition):
    """Too many others have written since: how far this writer got is not known any more."""

    reason = "WRITER_FORGOTTEN"

    def __init__(self, exec_id: str, most: int) -> None:
        super().__init__(
            f"execution {exec_id!r} has forgotten this writer: it remembers the {most} that wrote last; use a new name,"
            " if you know what of yours has arrived"
        )


class WriterUnsupported(Precondition):
    """The supervisor is of a version that knows no writers."""

    reason = "WRITER_NOT_SUPPORTED"

    def __init__(self, exec_id: str) -> None:
        super().__init__(
            f"execution {exec_id!r} is of an earlier version, which counts all writers as one; leave writer empty"
        )


class OutOfRange(RexecError):
    """An offset beyond the end; `end` is where one can go on."""

    reason = "OFFSET_BEYOND_END"

    def __init__(self, field: str, offset: int, end: int) -> None:
        super().__init__(f"{field} {offset} is beyond the end, which is {end}")
        self.offset = offset
        self.end = end


class Exhausted(RexecError):
    """A limit is reached. `retry_after` is in seconds."""

    reason = "EXHAUSTED"

    def __init__(self, subject: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.subject = subject
        self.retry_after = retry_after


class RateLimited(Exhausted):
    """Asked too often. Nothing else is in the way: `retry_after` is when it will do."""

    reason = "RATE_LIMITED"


class Unavailable(RexecError):
    reason = "UNAVAILABLE"


class NotServed(RexecError):
    reason = "NOT_SERVED"

    def __init__(self) -> None:
        super().__init__("this server does not serve that method")


class SlowReader(RexecError):
    """The command did not read its standard input in time; `bytes_written` is how far it got."""

    reason = "STDIN_NOT_READ"

    def __init__(self, bytes_written: int) -> None:
        super().__init__(f"the command does not read; bytes_written is {bytes_written}")
        self.bytes_written = bytes_written
