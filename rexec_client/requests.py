"""What a caller asks for, as keywords, made into requests of the wire."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Literal, TypedDict

from google.protobuf.duration_pb2 import Duration
from rexec.v1 import execution_service_pb2 as wire

from rexec_client.output import Channel, channel_numbers
from rexec_client.results import Arguments, StrPath

Seconds = float | timedelta

# Up to this size input travels with the request; beyond, it is written while the command runs.
INLINE_INPUT = 1 << 20


# `drop_oldest` is how it was spelt first.
OnOverflow = Literal["wait", "drop-oldest", "drop_oldest", "terminate"]
_OVERFLOW: dict[str, wire.Overflow.ValueType] = {
    "wait": wire.OVERFLOW_WAIT,
    "drop-oldest": wire.OVERFLOW_DROP_OLDEST,
    "drop_oldest": wire.OVERFLOW_DROP_OLDEST,
    "terminate": wire.OVERFLOW_TERMINATE,
}

# The most that `run` collects, in bytes, unless it is told otherwise.
MAX_COLLECTED = 1 << 30


class ExecOptions(TypedDict, total=False):
    """Keywords of `run` and `start`. Times are seconds or timedeltas, sizes bytes; what is left out is the server's."""

    shell: bool
    """The command is one line for /bin/sh -c."""
    exec_id: str
    """Made by the client when left out. Give one to be able to come back after a crash of one's own."""
    input: bytes | str
    """Standard input (a str is encoded as UTF-8); nothing when left out."""
    timeout: Seconds
    """How long the command may run. Never a deadline of the call."""
    cwd: StrPath
    """Absolute directory to start in."""
    env: Mapping[str, str]
    """Added to a clean environment of PATH, HOME and LANG: nothing of this process's own is passed on."""
    merge_stderr: bool
    """Standard error goes into standard output, in the command's true order."""
    kill_grace: Seconds
    """Between TERM and KILL."""
    drain_timeout: Seconds
    """How long after the end output of processes that still hold a channel is waited for."""
    unattended_timeout: Seconds
    """Cancel it when nobody has followed it for this long."""
    keep_leftovers: bool
    """Processes that outlive the command live on, instead of being ended with it."""
    max_output: int
    """Bytes of output that are kept. For a `run` that waits: the most that it collects, 1 GiB when left out."""
    on_overflow: OnOverflow
    """The reaction beyond: "wait" (the command waits for its readers, as at a full pipe, and nothing is lost),
    "drop-oldest" or "terminate". Left out, `run` waits where the server can, and `start` drops the oldest."""
    limits: wire.ResourceLimits
    """Limits on memory, CPU time, processes, files."""
    retention: Seconds
    """How long the ended execution is kept."""
    labels: Mapping[str, str]
    """For `list`."""
    exclusive_group: str
    """At most one unfinished execution in it; otherwise BusyError."""


def exec_request(args: Arguments, options: ExecOptions, *, open_stdin: bool = False) -> wire.ExecRequest:
    """Return the request for a command, with an exec_id: so that it can be sent again and run once.

    Raises:
        TypeError: a string without shell=True, or the other way round.
        ValueError: an on_overflow that does not exist.
    """
    request = wire.ExecRequest(
        exec_id=options.get("exec_id") or uuid.uuid4().hex,
        working_directory=os.fspath(options.get("cwd", "")),
        environment_variables=options.get("env"),
        stderr_mode=wire.STDERR_MODE_MERGED if options.get("merge_stderr") else wire.STDERR_MODE_SEPARATE,
        timeout=duration(options.get("timeout")),
        kill_grace=duration(options.get("kill_grace")),
        drain_timeout=duration(options.get("drain_timeout")),
        unattended_timeout=duration(options.get("unattended_timeout")),
        leftovers=wire.LEFTOVERS_KEEP if options.get("keep_leftovers") else wire.LEFTOVERS_KILL,
        output=_output_limit(options),
        limits=options.get("limits"),
        retention=duration(options.get("retention")),
        labels=options.get("labels"),
        exclusive_group=options.get("exclusive_group", ""),
    )
    _set_command(request, args, shell=options.get("shell", False))
    _set_stdin(request, input_bytes(options), open_stdin=open_stdin)
    return request


def follow_request(
    exec_id: str,
    *,
    since: int = 0,
    tail_lines: int | None = None,
    tail_bytes: int | None = None,
    channels: Collection[Channel] = (),
    owner: str = "",
    holder: str = "",
) -> wire.FollowRequest:
    """A Follow from an offset, or from a tail when one is given."""
    request = wire.FollowRequest(exec_id=exec_id, channels=channel_numbers(channels), caller=owner, holder=holder)
    set_start(request, since, tail_lines, tail_bytes)
    return request


def set_start(
    request: wire.FollowRequest | wire.PollRequest, since: int | None, tail_lines: int | None, tail_bytes: int | None
) -> None:
    """Say where to begin. Raises TypeError when there are two places."""
    if (tail_lines is not None) + (tail_bytes is not None) + bool(since) > 1:
        raise TypeError("since=, tail_lines= and tail_bytes= each say where to begin: give one of them")
    if tail_lines is not None:
        request.tail_lines = tail_lines
    elif tail_bytes is not None:
        request.tail_bytes = tail_bytes
    elif since is not None:
        request.offset = since


def seconds(value: Seconds | None) -> float:
    """A number of seconds; 0 for None."""
    return value.total_seconds() if isinstance(value, timedelta) else value or 0.0


def duration(value: Seconds | None) -> Duration | None:
    """Seconds as the wire has them; None stays unset."""
    if value is None:
        return None
    result = Duration()
    result.FromTimedelta(timedelta(seconds=seconds(value)))
    return result


def waiting(options: ExecOptions) -> ExecOptions:
    """Return options of a `run` that waits for its reader: the server keeps its default; `max_output` is for `run`."""
    kept: ExecOptions = {**options, "on_overflow": "wait"}
    kept.pop("max_output", None)
    return kept


def most_collected(options: ExecOptions) -> int:
    """Return how many bytes `run` collects at most."""
    asked = options.get("max_output") or MAX_COLLECTED
    return asked if options.get("on_overflow") == "wait" else max(asked, MAX_COLLECTED)


def input_bytes(options: ExecOptions) -> bytes | None:
    """The input, encoded; None when there is none."""
    value = options.get("input")
    return value.encode() if isinstance(value, str) else value


def _set_command(request: wire.ExecRequest, args: Arguments, *, shell: bool) -> None:
    if isinstance(args, str) != shell:
        raise TypeError("a command is a list of arguments, or one string with shell=True")
    if isinstance(args, str):
        request.shell = args
    else:
        request.arguments.extend(os.fspath(argument) for argument in args)


def _set_stdin(request: wire.ExecRequest, data: bytes | None, *, open_stdin: bool) -> None:
    if open_stdin or (data is not None and len(data) > INLINE_INPUT):
        # Nothing goes ahead with the request: the writer then starts at offset 0, whatever has been accepted.
        request.stdin_mode = wire.STDIN_MODE_OPEN
    elif data is not None:
        request.stdin_mode, request.initial_stdin = wire.STDIN_MODE_BYTES, data
    else:
        request.stdin_mode = wire.STDIN_MODE_NULL


def _output_limit(options: ExecOptions) -> wire.OutputLimit | None:
    if not options.keys() & {"max_output", "on_overflow"}:
        return None
    wanted = options.get("on_overflow") or "drop-oldest"
    if wanted not in _OVERFLOW:
        raise ValueError(f"on_overflow={wanted!r}: it is 'wait', 'drop-oldest' or 'terminate'")
    return wire.OutputLimit(max_bytes=options.get("max_output", 0), overflow=_OVERFLOW[wanted])
