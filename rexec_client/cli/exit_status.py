"""The exit status of `rexec run` and `rexec follow`, from the end of a command.

its own exit code       0 to 255
ended by signal n       128+n, as a shell has it (the library and --json tell it from an exit code)
program not found       127, as env(1)
not to be started       126, as env(1)
lost, or rexec failed   255, as ssh(1)
output is missing       255, unless --gaps accepts it
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from rexec_client.executions import reason_name

if TYPE_CHECKING:
    from rexec_client import Execution

FAILED = 255
NOT_FOUND = 127
NOT_STARTED = 126
INTERRUPTED = 128 + signal.SIGINT
NOBODY_READS = 128 + signal.SIGPIPE


def exit_status(execution: Execution) -> int:
    """The status for an ended execution."""
    match execution.WhichOneof("exit_status"):
        case "exit_code":
            return execution.exit_code
        case "signal":
            return 128 + execution.signal
    if execution.HasField("start_error"):
        return NOT_FOUND if execution.start_error.errno == "ENOENT" else NOT_STARTED
    return FAILED


def remark(execution: Execution) -> str:
    """What the status alone does not tell, for a person; empty when there is nothing to add."""
    match reason_name(execution):
        case "exited" | "signaled" | "cancelled":
            return ""
        case "start failed":
            error = execution.start_error
            return f"not started: {error.message or error.errno}"
        case "lost":
            return "lost: what became of the command cannot be known"
        case reason:
            return f"the command was ended: {reason}"


def missing_output(count: int, execution: Execution) -> str:
    """Return the last line for output that is not whole: how much is missing, and what would keep it."""
    # One that waits for its reader has dropped only what a reader had, or let go.
    advice = "" if execution.overflow_waits else "--on-overflow wait keeps all, "
    return (
        f"the output is not whole: {count} bytes are no longer kept; "
        f"{advice}a larger --max-output keeps more; --gaps accepts it"
    )
