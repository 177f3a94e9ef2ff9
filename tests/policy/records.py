"""Executions for tests of the audit, and how its lines are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rexec_server.core.execution import Execution, Extent, Key, Request, State
from rexec_server.core.origin import Origin
from rexec_server.core.spool import ExitRecord, Reason

ORIGIN = Origin("token", "alice-1", "7c1d", 1, "ipv4:10.0.0.7:40212")
SECOND = 10**9


def execution(*arguments: str, exec_id: str = "e1", **request: Any) -> Execution:
    asked = Request(arguments=arguments or ("tail", "-n", "5"), working_directory="/srv", **request)
    return Execution(Key("alice", exec_id), State.STARTING, asked, create_time=SECOND)


def ended(before: Execution, state: State = State.SUCCEEDED, **record: Any) -> Execution:
    facts = {"reason": Reason.EXITED, "exit_code": 0} | record
    exit_ = ExitRecord(end_time=5 * SECOND, stdout_bytes=7, stderr_bytes=9, output_complete=True, **facts)
    start_time = 0 if exit_.start_error else 3 * SECOND + SECOND // 2
    extent = Extent(4, 16, (7, 9), (1, 3))
    return replace(before, state=state, start_time=start_time, exit=exit_, extent=extent)


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line; each must be one JSON object."""
    return [json.loads(line) for line in path.read_text().splitlines()]
