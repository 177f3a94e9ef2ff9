"""The files of one execution: their names and their formats.

A directory per execution holds its output and its end. It is the truth about both: the server reads it, and only
the holder of `lock` writes in it. `docs/protocol.md` describes the layout for readers in other languages.

    lock                    held (flock) while the command is supervised; written to after each batch of output,
                            so that a watcher wakes; says why the command makes no progress, and which output is held
    request                 what was reserved, as the server keeps it in its index: one JSON object
    start                   who runs: empty, then one JSON object, there before the command's exec
    exit.tmp, exit          how it ended: notes while it runs, then one JSON object, renamed when it is true
    out err in              the FIFOs of the command, while a process may hold them
    stdin                   how far standard input has got
    control                 the socket on which the supervisor takes signals, input and cancellation
    <offset>.log            a segment of raw output, named by the log offset of its first byte
    <offset>.index          channel, offset and time of each piece of that segment

Writer and reader may be of different versions: a reader leaves aside what it does not know, and what a later version
adds has a default here.
"""

from __future__ import annotations

import enum
import errno
import json
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

LOCK = "lock"
REQUEST = "request"
START = "start"
EXIT = "exit"
EXIT_DRAFT = "exit.tmp"
STDIN_STATE = "stdin"
CONTROL = "control"
FIFO_OUT = "out"
FIFO_ERR = "err"
FIFO_IN = "in"
SEGMENT_SUFFIX = ".log"
INDEX_SUFFIX = ".index"

RUNNER_SOCKET = "runner.sock"
RUNNER_PID = "runner.pid"
SPOOL = "spool"

# Room for an exit record, taken at the start, so that a full disk cannot keep the end from being written.
EXIT_RECORD_BYTES = 4096

# Little-endian, whatever the machine: stdout_before; offset, time, channel; written, pending, open.
SEGMENT_FORMAT = struct.Struct("<Q")
PIECE_FORMAT = struct.Struct("<QQQ")
STDIN_FORMAT = struct.Struct("<QQQ")
# The lock file: why the command waits, one byte; and from 8 on the floor.
FLOOR_FORMAT = struct.Struct("<Q")
FLOOR_POSITION = 8
# A floor that holds nothing: the last holder has left and lets the command go on.
RELEASED = 2**64 - 1
_OFFSET_DIGITS = 20


class Channel(enum.IntEnum):
    """Where a byte of output came from; numbers as in the wire contract."""

    STDOUT = 1
    STDERR = 2


_CHANNELS = frozenset(map(int, Channel))


class Waiting(enum.Enum):
    """Why a command that has not ended makes no progress, as the lock file says it."""

    NOTHING = b"\n"
    READER = b"r"  # the log is full, and its oldest output is held
    DISK = b"d"  # there is no space on the disk
    DISK_AT_END = b"D"  # the same, and the command itself has exited


class Reason(enum.IntEnum):
    """Who or what ended an execution; numbers as in the wire contract."""

    EXITED = 1
    SIGNALED = 2
    CANCELLED = 3
    TIMED_OUT = 4
    OUTPUT_LIMIT = 5
    OUT_OF_MEMORY = 6
    START_FAILED = 7
    UNATTENDED = 8
    SERVER_SHUTDOWN = 9
    LOST = 10


class StartError(NamedTuple):
    """Why a command could not be started: the system's name of the error, and a sentence for a person."""

    errno: str
    message: str


class Usage(NamedTuple):
    """What the command and its waited-for children used: seconds of CPU, bytes of memory."""

    user_cpu: float
    system_cpu: float
    max_rss_bytes: int


class StartRecord(NamedTuple):
    """Who runs. A process id alone may be another process by now: with start time and boot it is an identity."""

    pid: int
    pid_start: int
    shim_pid: int
    shim_start: int
    boot_id: str
    start_time: int  # ns since 1970
    supervision: dict[str, Any]  # what a successor of the shim must know
    caller: str = ""  # with exec_id, whose execution it is; empty where the server did not say so
    exec_id: str = ""
    digest: str = ""  # of the request, in hexadecimal digits

    def to_bytes(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StartRecord:
        """ValueError when it is damaged, as after a power cut."""
        try:
            return cls(**_known(cls, json.loads(data)))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a start record: {error}") from error


class ExitRecord(NamedTuple):
    """How an execution ended. Exactly one of exit_code, signal, start_error and lost is set."""

    reason: Reason
    end_time: int  # ns since 1970
    stdout_bytes: int  # produced, whether kept or not
    stderr_bytes: int
    output_complete: bool
    leftover_processes: int = 0
    exit_code: int | None = None
    signal: int | None = None
    start_error: StartError | None = None
    lost: str | None = None  # why nothing can be known
    usage: Usage | None = None
    written_by: str = "shim"

    def to_bytes(self) -> bytes:
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> ExitRecord:
        """ValueError when it is damaged: cut, zeroed, or not a record at all."""
        try:
            fields = json.loads(data.split(b"\n")[0])
            error, usage = fields["start_error"], fields["usage"]
            return cls(
                **_known(cls, fields)
                | {
                    "reason": Reason(fields["reason"]),
                    "start_error": StartError(*error) if error else None,
                    "usage": Usage(*usage[: len(Usage._fields)]) if usage else None,
                }
            )
        except (TypeError, KeyError, AttributeError) as wrong:
            raise ValueError(f"not an exit record: {wrong}") from wrong


class Segment(NamedTuple):
    """The head of an index file: how much of the log before this segment was standard output."""

    stdout_before: int

    def to_bytes(self) -> bytes:
        return SEGMENT_FORMAT.pack(*self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Segment:
        return cls(*SEGMENT_FORMAT.unpack_from(data))


class Piece(NamedTuple):
    """From `offset` on, up to the next piece or the end of the segment's bytes, the log is of one channel.

    It is written before its bytes are, so a byte without a piece does not exist, while a piece may have none.
    """

    offset: int
    time: int  # ns since 1970
    channel: int

    def to_bytes(self) -> bytes:
        return PIECE_FORMAT.pack(*self)


class StdinState(NamedTuple):
    """The progress of standard input without the writers that have a name: these come after it, see `stdin_writers`.

    `pending` bytes of one or the other may or may not have been written when a supervisor died.
    """

    written: int = 0
    pending: int = 0
    open: int = 1

    def to_bytes(self) -> bytes:
        return STDIN_FORMAT.pack(*self)

    @classmethod
    def from_bytes(cls, data: bytes) -> StdinState:
        return cls(*STDIN_FORMAT.unpack_from(data)) if len(data) >= STDIN_FORMAT.size else cls()


def _known(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """Without what a later version has added."""
    return {name: value for name, value in fields.items() if name in kind._fields}


def segment_name(offset: int) -> str:
    return f"{offset:0{_OFFSET_DIGITS}d}{SEGMENT_SUFFIX}"


def index_name(offset: int) -> str:
    return f"{offset:0{_OFFSET_DIGITS}d}{INDEX_SUFFIX}"


def segment_offsets(directory: int | str) -> list[int]:
    """Start offsets of the segments that are kept, oldest first."""
    names = (name.removesuffix(SEGMENT_SUFFIX) for name in os.listdir(directory) if name.endswith(SEGMENT_SUFFIX))
    return sorted(int(name) for name in names if len(name) == _OFFSET_DIGITS and name.isdigit())


def believable(
    pieces: Iterable[tuple[int, int, int]], start: int, before: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """The pieces of a segment that begins at `start`, as far as they make sense: nothing after a damaged one does.

    before: the offset of the piece before the first of these, if there is one.
    """
    for piece in pieces:
        offset, _, channel = piece
        if channel not in _CHANNELS or (offset != start if before is None else offset < before):
            return
        yield piece
        before = offset


class NotRegular(OSError, ValueError):
    """Something else is where a regular file of the spool should be: damage, as bytes that make no sense are."""


def open_regular(path: str, flags: int = os.O_RDONLY, directory: int | None = None) -> int:
    """Open a file of the spool. Never wait for a FIFO, never follow a symbolic link. NotRegular, OSError."""
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=directory)
    except OSError as error:
        # A symbolic link; a directory; a socket, or a FIFO without a reader; a device without a driver.
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise NotRegular(error.errno, "is not a regular file", path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular(errno.EINVAL, "is not a regular file", path)
    return fd


def read_file(path: str, directory: int | None = None) -> bytes | None:
    """Return the whole of a small file, or None when there is none. NotRegular, OSError."""
    try:
        fd = open_regular(path, directory=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.pread(fd, 64 * 1024, 0)
    finally:
        os.close(fd)


def read_whole(name: str, directory: int) -> bytes | None:
    """Return the whole of a file of any size, or None when there is none. NotRegular, OSError."""
    try:
        fd = open_regular(name, directory=directory)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return file.read()


def read_stdin_state(directory: int) -> StdinState:
    """Return how far standard input has got; damaged, it is not open any more."""
    try:
        return StdinState.from_bytes(read_file(STDIN_STATE, directory) or b"")
    except NotRegular:
        return StdinState(open=0)


def read_start(directory: int) -> StartRecord | None:
    """The start record, or None: then the command has not been executed in this boot. ValueError: it is damaged."""
    data = read_file(START, directory)
    return StartRecord.from_bytes(data) if data else None


def read_exit(directory: int) -> ExitRecord | None:
    """The exit record, or None: there is none, or none that can be believed."""
    try:
        return ExitRecord.from_bytes(read_file(EXIT, directory) or b"")
    except ValueError:
        return None
