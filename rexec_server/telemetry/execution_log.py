"""A line in the log for each start and each end: whose it was, and how it went; never what was run, or what it said."""

from __future__ import annotations

import logging
from typing import Any

from rexec_server.core.execution import Execution, State
from rexec_server.core.observer import Observer

_log = logging.getLogger("rexec.execution")


class ExecutionLog(Observer):
    """An execution may end under another server than the one under which it started: each line says all."""

    def started(self, name: str, execution: Execution) -> None:
        _log.info("started", extra=about(name, execution) | {"pid": execution.pid})

    def ended(self, name: str, execution: Execution) -> None:
        record = execution.exit
        assert record is not None
        fields = about(name, execution) | {"state": execution.state.name, "reason": record.reason.name}
        if execution.state is State.LOST:
            _log.warning("LOST: nobody can know how it ended", extra=fields | {"why": record.lost})
        elif record.start_error:
            # Not its message, which may name a directory of the command's environment.
            _log.warning("could not be started", extra=fields | {"error": record.start_error.errno})
        else:
            seconds = max(0.0, (record.end_time - execution.start_time) / 1e9)
            how = {"exit_code": record.exit_code, "signal": record.signal, "seconds": round(seconds, 3)}
            _log.info("ended", extra=fields | how)


def about(name: str, execution: Execution) -> dict[str, Any]:
    """Which execution a line is about. `execution` is its name in the spool, under which the runner knows it."""
    trace_id = execution.request.trace[3:35]  # of 00-<trace id>-<span id>-<flags>
    return {"exec_id": execution.key.exec_id, "caller": execution.key.caller, "execution": name, "trace_id": trace_id}
