"""Executions for eyes (tables) and for programs (JSON)."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rexec.v1.execution_pb2 import Execution, Waiting

from rexec_client.cli.telling import tell
from rexec_client.executions import is_ended, reason_name, signal_name, state_name
from rexec_client.output import Channel, OutputChunk
from rexec_client.polls import PollResult

# A server newer than this client may know more reasons.
_WAITS_FOR: dict[int, str] = {Waiting.WAITING_READER: "its reader", Waiting.WAITING_DISK: "space on the disk"}
STYLES = {"starting": "yellow", "running": "cyan", "succeeded": "green", "failed": "red", "lost": "magenta"}


def document(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with the names of the contract and nothing left out."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def poll_document(result: PollResult) -> dict[str, Any]:
    """A PollResponse as JSON has it."""
    return {
        "execution": document(result.execution),
        "chunks": [chunk_document(chunk) for chunk in result.chunks],
        "next_offset": str(result.next_offset),
        "skipped_bytes": str(result.skipped_bytes),
        "eof": result.eof,
    }


def print_json(value: object) -> None:
    """One document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        text = ", ".join(value) if isinstance(value, list) else value
        sys.stdout.write(f"{name.replace('_', ' '):{width}}  {text}\n")
    sys.stdout.flush()


def print_poll(result: PollResult) -> None:
    """Output where it belongs, and one line about the rest."""
    for chunk in result.chunks:
        _write(1 if chunk.channel is Channel.STDOUT else 2, chunk.data)
    execution = result.execution
    outcome = f", {_outcome(execution)}" if is_ended(execution) else _waiting(execution)
    held = f"; {limit_text(execution)}" if execution.overflow_waits and not is_ended(execution) else ""
    tell(
        f"{execution.exec_id} {state_name(execution)}{outcome}; {_took(execution)}{held}; "
        f"next offset {result.next_offset}{_more(result)}"
    )


def print_table(executions: Sequence[Execution], *, callers: bool) -> None:
    """A table: in colour on a terminal, plain and uncut in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", *(["CALLER"] if callers else []), "STATE", "END", "AGE", "TOOK"):
        table.add_column(column, no_wrap=True)
    table.add_column("COMMAND", no_wrap=True, overflow="ellipsis")
    for execution in executions:
        waits = f", waits for {_WAITS_FOR.get(execution.waiting, 'something')}" if execution.waiting else ""
        state = Text(f"{state_name(execution)}{waits}", style=STYLES.get(state_name(execution), ""))
        caller = [Text(execution.caller)] if callers else []
        cells = (_outcome(execution), _age(execution), _took(execution), command_text(execution))
        table.add_row(Text(execution.exec_id), *caller, state, *map(Text, cells))
    console.print(table)


def execution_pairs(execution: Execution) -> dict[str, Any]:
    """Return what is known of an execution, for a person."""
    ended = is_ended(execution)
    pairs = {
        "id": execution.exec_id,
        "caller": execution.caller,
        "command": command_text(execution),
        "state": state_name(execution),
        "end": _outcome(execution) if ended else "",
        "waits for": waiting_text(execution),
        "age": _age(execution),
        "took": _took(execution),
        "output": f"{execution.log_end_offset} bytes, kept from offset {execution.log_start_offset}",
        "limit": limit_text(execution) if execution.max_output_bytes else "",
    }
    return {name: value for name, value in pairs.items() if value}


def limit_text(execution: Execution) -> str:
    """Return how much output is kept, and what happens beyond."""
    if not execution.overflow_waits:
        return f"{execution.max_output_bytes} bytes kept"
    return f"{execution.max_output_bytes} bytes kept, then it waits; held from offset {execution.held_offset}"


def waiting_text(execution: Execution) -> str:
    """Return the reason why it makes no progress; empty when it does not wait."""
    if not execution.waiting:
        return ""
    kind = _WAITS_FOR.get(execution.waiting, "something")
    return f"{kind}: {execution.waiting_message}" if execution.waiting_message else kind


def command_text(execution: Execution) -> str:
    """What was run, as it would be typed, on one line and without control characters."""
    line = execution.shell or shlex.join(execution.arguments)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def chunk_document(chunk: OutputChunk) -> dict[str, Any]:
    """Return a chunk as JSON has it: as text if it is UTF-8, else in base64."""
    head = {"channel": f"CHANNEL_{chunk.channel.name}", "offset": str(chunk.offset)}
    if chunk.time is not None:
        head["read_time"] = chunk.time.isoformat().replace("+00:00", "Z")
    try:
        return head | {"text": chunk.data.decode()}
    except UnicodeDecodeError:
        return head | {"data": b64encode(chunk.data).decode()}


def _outcome(execution: Execution) -> str:
    """`0`, `7`, `SIGKILL`, `SIGTERM, timed out`, `ENOENT`."""
    match execution.WhichOneof("exit_status"):
        case "exit_code":
            ended = str(execution.exit_code)
        case "signal":
            ended = signal_name(execution.signal)
        case _:
            return execution.start_error.errno
    reason = reason_name(execution)
    return ended if reason in ("exited", "signaled") else f"{ended}, {reason}"


def _more(result: PollResult) -> str:
    """Tell of what one answer has no room for, so that it is not taken for the end."""
    count = result.execution.log_end_offset - result.next_offset
    return f", and {count} bytes more from there" if count > 0 else ""


def _waiting(execution: Execution) -> str:
    return f", waits for {waiting_text(execution)}" if execution.waiting else ""


def _age(execution: Execution) -> str:
    return _span(time.time() - _unix(execution.create_time))


def _took(execution: Execution) -> str:
    if not execution.HasField("start_time"):
        return "-"
    end = _unix(execution.end_time) if execution.HasField("end_time") else time.time()
    return _span(end - _unix(execution.start_time))


def _span(seconds: float) -> str:
    """`0.2s`, `12s`, `3m`, `5h`, `2d`: one number is what an eye takes in."""
    seconds = max(seconds, 0)
    for limit, unit, name in ((9.95, 1, "s"), (120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds:.1f}s" if limit < 10 else f"{seconds / unit:.0f}{name}"
    return f"{seconds / 86400:.0f}d"


def _unix(timestamp: Timestamp) -> float:
    return timestamp.seconds + timestamp.nanos / 1e9


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
