"""Wire messages to core values and back; pure functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.command import Command
from rexec_server.core.engine import StdinPiece, StdinProgress
from rexec_server.core.errors import InvalidRequest
from rexec_server.core.execution import CHANNELS, Execution, State
from rexec_server.core.launch import Leftovers, Limits, Overflow, StderrMode, StdinMode
from rexec_server.core.log import Chunk, Missing
from rexec_server.core.spool import Channel, StdinState, Waiting
from rexec_server.core.stdin_writers import MAX_NAME, writer_key
from rexec_server.core.text import TextChunk

_WAITING = {
    Waiting.NOTHING: pb.WAITING_UNSPECIFIED,
    Waiting.READER: pb.WAITING_READER,
    Waiting.DISK: pb.WAITING_DISK,
    Waiting.DISK_AT_END: pb.WAITING_DISK,
}

T = TypeVar("T", StdinMode, StderrMode, Leftovers, Overflow)


def command(request: api.ExecRequest) -> Command:
    """What an ExecRequest asks to be run; InvalidRequest for an enum number that this server does not know."""
    return Command(
        arguments=tuple(request.arguments),
        shell=request.shell,
        working_directory=request.working_directory,
        environment_variables=dict(request.environment_variables),
        stdin_mode=_enum(StdinMode, request.stdin_mode, "stdin_mode"),
        initial_stdin=request.initial_stdin,
        stderr_mode=_enum(StderrMode, request.stderr_mode, "stderr_mode"),
        timeout=seconds(request, "timeout"),
        kill_grace=seconds(request, "kill_grace"),
        drain_timeout=seconds(request, "drain_timeout"),
        unattended_timeout=seconds(request, "unattended_timeout"),
        leftovers=_enum(Leftovers, request.leftovers, "leftovers"),
        output_bytes=request.output.max_bytes,
        overflow=_enum(Overflow, request.output.overflow, "output.overflow"),
        limits=Limits(
            memory_bytes=request.limits.memory_bytes,
            cpu_seconds=request.limits.cpu_seconds,
            processes=request.limits.processes,
            open_files=request.limits.open_files,
            file_bytes=request.limits.file_bytes,
        ),
        retention=seconds(request, "retention"),
        labels=dict(request.labels),
        exclusive_group=request.exclusive_group,
    )


def seconds(message: Message, field: str) -> float | None:
    """A Duration field in seconds, None when it is not set; InvalidRequest when it is no valid duration."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    if not -999_999_999 <= value.nanos <= 999_999_999 or value.seconds * value.nanos < 0:
        raise InvalidRequest(field, "is not a valid google.protobuf.Duration")
    total = value.seconds + value.nanos / 1e9
    if total < 0:
        raise InvalidRequest(field, f"{total:g} s; a duration cannot be negative")
    return total


def channels(numbers: Iterable[int]) -> tuple[Channel, ...]:
    """The channels that a request names; all of them when it names none."""
    asked = list(numbers)
    for number in asked:
        if number not in (Channel.STDOUT, Channel.STDERR):
            raise InvalidRequest("channels", f"{number} is no channel; CHANNEL_STDOUT and CHANNEL_STDERR are")
    return tuple(Channel(number) for number in dict.fromkeys(asked)) or CHANNELS


def states(numbers: Iterable[int]) -> tuple[State, ...]:
    asked = list(numbers)
    for number in asked:
        if number not in tuple(State):
            raise InvalidRequest("states", f"{number} is no state that an execution can be in")
    return tuple(State(number) for number in dict.fromkeys(asked))


def execution(value: Execution) -> pb.Execution:
    request, record = value.request, value.exit
    message = pb.Execution(
        exec_id=value.key.exec_id,
        caller=value.key.caller,
        state=pb.State.ValueType(value.state),
        arguments=request.arguments,
        shell=request.shell,
        working_directory=request.working_directory,
        environment_names=request.environment_names,
        labels=request.labels,
        pid=value.pid,
        create_time=timestamp(value.create_time),
        log_start_offset=value.extent.start,
        log_end_offset=value.extent.end,
        totals=[
            pb.ChannelTotal(channel=pb.Channel.ValueType(channel), bytes_produced=produced, bytes_dropped=dropped)
            for channel, produced, dropped in list(
                zip(CHANNELS, value.extent.produced, value.extent.dropped, strict=True)
            )[: request.channels]
        ],
        stdin=stdin_status(value.stdin),
        followers=value.followers,
        exclusive_group=request.exclusive_group,
        waiting=_WAITING[value.waiting],
        waiting_message=value.waiting_message,
        max_output_bytes=request.output_bytes,
        overflow_waits=request.waits,
        held_offset=value.held_offset,
    )
    if value.start_time:
        message.start_time.CopyFrom(timestamp(value.start_time))
    if value.expire_time:
        message.expire_time.CopyFrom(timestamp(value.expire_time))
    if record is not None:
        _set_end(message, value)
    return message


def _set_end(message: pb.Execution, value: Execution) -> None:
    record = value.exit
    assert record is not None
    message.end_time.CopyFrom(timestamp(record.end_time))
    message.reason = pb.Reason.ValueType(record.reason)
    message.output_complete = record.output_complete
    message.leftover_processes = record.leftover_processes
    if record.exit_code is not None:
        message.exit_code = record.exit_code
    elif record.signal is not None:
        message.signal = record.signal
    if record.start_error:
        message.start_error.errno = record.start_error.errno
        message.start_error.message = record.start_error.message
    if record.usage:
        message.usage.user_cpu.FromNanoseconds(int(record.usage.user_cpu * 1e9))
        message.usage.system_cpu.FromNanoseconds(int(record.usage.system_cpu * 1e9))
        message.usage.max_rss_bytes = record.usage.max_rss_bytes


def stdin_piece(request: api.WriteStdinRequest) -> StdinPiece:
    if len(request.writer) > MAX_NAME:
        raise InvalidRequest("writer", f"{len(request.writer)} characters; at most {MAX_NAME}")
    return StdinPiece(request.offset, request.data, request.eof, writer_key(request.writer))


def stdin_progress(value: StdinProgress) -> api.WriteStdinResponse:
    status = pb.StdinStatus(bytes_written=value.bytes_written, open=value.open)
    return api.WriteStdinResponse(stdin=status, skipped_bytes=value.skipped)


def stdin_status(value: StdinState) -> pb.StdinStatus:
    return pb.StdinStatus(bytes_written=value.written, open=bool(value.open))


def put_chunk(value: Chunk | TextChunk, message: pb.OutputChunk) -> None:
    """In its place in another message: a message that is put into another one is copied, with its bytes."""
    message.channel = pb.Channel.ValueType(value.channel)
    message.offset = value.offset
    message.read_time.seconds, message.read_time.nanos = divmod(value.time, 10**9)
    if isinstance(value, TextChunk):
        message.text = value.text
    else:
        message.data = value.data


def gap(value: Missing) -> pb.Gap:
    return pb.Gap(start_offset=value.start, end_offset=value.end)


def timestamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def duration(value: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(int(value * 1e9))
    return message


def page_token(before: int | None) -> str:
    return "" if before is None else base64.urlsafe_b64encode(str(before).encode()).decode()


def parse_page_token(token: str) -> int | None:
    if not token:
        return None
    try:
        before = int(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        before = -1
    if not 0 <= before < 2**63:  # what the index can count to
        raise InvalidRequest("page_token", "is not the next_page_token of a page")
    return before


def _enum(kind: type[T], number: int, field: str) -> T:
    """0, unspecified, is the first member: the contract says so of each of these enums."""
    if number == 0:
        return kind(1)
    try:
        return kind(number)
    except ValueError:
        raise InvalidRequest(field, f"{number} is none of {', '.join(f'{m.name} ({m.value})' for m in kind)}") from None
