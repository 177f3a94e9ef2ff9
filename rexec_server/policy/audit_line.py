"""What the audit says, line by line: one JSON object each, of facts that may be shown.

Nothing secret can be in a line: it is made of what an execution shows of its request, which has no environment value
and no input. Whatever a caller wrote stays inside its line, as everything but printable ASCII is escaped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rexec_server.core.execution import Execution, Request
from rexec_server.core.origin import Origin
from rexec_server.core.spool import ExitRecord
from rexec_server.policy.caller import Caller

# Of a caller's texts in one field; what is beyond is cut, and said to be. A request may have megabytes of them.
MOST_BYTES = 16 * 1024


class AuditLine(NamedTuple):
    """One line, and what a journal sorts it by."""

    text: str
    event: str
    caller: str
    exec_id: str


def accepted(name: str, execution: Execution, origin: Origin) -> AuditLine:
    """A request that is about to be run."""
    key, request = execution.key, execution.request
    return _line(
        "accepted",
        {
            "caller": key.caller,
            **_origin(origin),
            "exec_id": key.exec_id,
            "name": name,
            "rule": request.rule,
            **_command(request),
            "stdin_bytes": request.stdin_bytes,
            "stdin_open": request.stdin_open,
            "user": request.user,
        },
    )


def finished(name: str, execution: Execution) -> AuditLine:
    """How an execution ended, as far as that is known."""
    key, record = execution.key, execution.exit
    facts = {
        "caller": key.caller,
        "exec_id": key.exec_id,
        "name": name,
        "rule": execution.request.rule,
        "user": execution.request.user,
        "state": execution.state.name,
    }
    return _line("finished", facts | (_end(execution, record) if record else {}))


def event(what: str, caller: Caller | None, facts: Mapping[str, object]) -> AuditLine:
    """Anything else that a caller did, or that was done to the server."""
    who = {"caller": caller.name, **_origin(caller.origin)} if caller else {}
    return _line(what, who | _shortened(facts))


def _line(what: str, facts: Mapping[str, Any]) -> AuditLine:
    record = {"time": _time(datetime.now(UTC)), "event": what}
    # Facts that are not there are left out; that somebody wrote no input is one.
    record |= {name: value for name, value in facts.items() if value not in (None, "", [], ())}
    text = json.dumps(record, separators=(",", ":"), default=str)
    return AuditLine(text, what, str(record.get("caller", "")), str(record.get("exec_id", "")))


def _origin(origin: Origin) -> dict[str, str]:
    return {"method": origin.method, "key_id": origin.key_id, "token_id": origin.token_id, "peer": origin.peer}


def _command(request: Request) -> dict[str, object]:
    return _shortened(
        {
            "arguments": request.arguments,
            "shell": request.shell,
            "granted": request.granted,
            "working_directory": request.working_directory,
            "environment_names": request.environment_names,
        }
    )


def _end(execution: Execution, record: ExitRecord) -> dict[str, object]:
    error, extent = record.start_error, execution.extent
    lasted = (record.end_time - execution.start_time) / 1e9 if execution.start_time else None
    return {
        "reason": record.reason.name,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "start_error": error.errno if error else None,
        "lost": record.lost,
        "end_time": _time(datetime.fromtimestamp(record.end_time / 1e9, UTC)),
        "duration": None if lasted is None else round(lasted, 3),
        "stdout_bytes": record.stdout_bytes,
        "stderr_bytes": record.stderr_bytes,
        "dropped_bytes": sum(extent.dropped),
        "leftover_processes": record.leftover_processes,
    }


def _shortened(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts with their texts cut to what a line may hold. What was cut is told: how much it was, and its SHA-256."""
    short: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, str):
            texts, cut = _cut([value])
            short[name] = texts[0] if texts else ""
        elif isinstance(value, (list, tuple)):
            short[name], cut = _cut([str(item) for item in value])
        else:
            short[name], cut = value, None
        if cut:
            short[f"{name}_cut"] = cut
    return short


def _cut(texts: Sequence[str]) -> tuple[list[str], dict[str, object] | None]:
    """The first of them, up to the limit; and what all of them were, when that is not all."""
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    size = sum(map(len, encoded))
    # What separates them counts as well, so that many empty ones find an end.
    if size + len(texts) - 1 <= MOST_BYTES:
        return list(texts), None
    kept, room = [], MOST_BYTES
    for data in encoded:
        if room <= 0:
            break
        kept.append(data[:room].decode(errors="ignore"))
        room -= len(data) + 1
    digest = hashlib.sha256(b"\0".join(encoded)).hexdigest()
    return kept, {"count": len(texts), "bytes": size, "sha256": digest}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
