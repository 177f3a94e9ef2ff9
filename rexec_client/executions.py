"""Reading the wire's Execution: is it over, how did it end, what do its numbers mean. No gRPC needed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rexec.v1.execution_pb2 import Execution

# STATE_SUCCEEDED, STATE_FAILED, STATE_LOST: written as numbers, so that this imports without protobuf.
_FINAL = frozenset({3, 4, 5})


def is_ended(execution: Execution) -> bool:
    """True when it will not change any more."""
    return execution.state in _FINAL


def returncode(execution: Execution) -> int | None:
    """As in subprocess: the exit code, or minus the signal's number; None while running or without a wait status."""
    match execution.WhichOneof("exit_status"):
        case "exit_code":
            return execution.exit_code
        case "signal":
            return -execution.signal
        case _:
            return None


def state_name(execution: Execution) -> str:
    """Its state in a person's words: `STATE_RUNNING` is `running`."""
    return _words(execution, "state")


def reason_name(execution: Execution) -> str:
    """Who or what ended it, in a person's words: `REASON_TIMED_OUT` is `timed out`."""
    return _words(execution, "reason")


def waiting_name(execution: Execution) -> str:
    """Return why it makes no progress, in a word: `WAITING_READER` is `reader`."""
    return _words(execution, "waiting")


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _words(execution: Execution, field: str) -> str:
    number = getattr(execution, field)
    enum = execution.DESCRIPTOR.fields_by_name[field].enum_type
    value = enum.values_by_number.get(number) if enum else None
    # A server newer than this client may know more names.
    name = value.name if value else str(number)
    return name.removeprefix(f"{field.upper()}_").replace("_", " ").lower()
