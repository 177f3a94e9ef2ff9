"""An execution as callers see it: its state, and the facts that belong to each state."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from rexec_server.core.spool import Channel, ExitRecord, StdinState, Waiting


class State(enum.IntEnum):
    """Where an execution is in its life; numbers as in the wire contract."""

    STARTING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    LOST = 5

    @property
    def final(self) -> bool:
        return self >= State.SUCCEEDED


class Key(NamedTuple):
    """What names an execution: its id is unique within its caller."""

    caller: str
    exec_id: str


class Extent(NamedTuple):
    """How much of a log there is. produced = readable + dropped, for each channel, always."""

    start: int = 0  # offset of the oldest byte that can be read
    end: int = 0  # offset after the newest byte
    produced: tuple[int, int] = (0, 0)  # standard output, standard error
    dropped: tuple[int, int] = (0, 0)

    @property
    def kept_bytes(self) -> int:
        return sum(self.produced) - sum(self.dropped)


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request is shown again: no environment value, no input."""

    arguments: tuple[str, ...] = ()
    shell: str = ""
    working_directory: str = ""
    environment_names: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    exclusive_group: str = ""
    channels: int = 2
    stdin_bytes: int = 0  # given with the request
    stdin_open: bool = False
    retention: float = 0.0  # seconds after the end
    rule: str = ""  # of the allowlist, by which it was granted
    granted: tuple[str, ...] = ()  # what the rule made of the arguments or the line, where that is something else
    user: int | None = None  # uid that it runs as, where that is not the runner's
    output_bytes: int = 0  # kept, as in force; 0: not known, it is of an older version
    waits: bool = False  # at that limit, for its readers
    trace: str = ""  # W3C traceparent of the call that started it; not shown, but kept for who sees its end


@dataclass(frozen=True, slots=True)
class Execution:
    """A snapshot. Times are nanoseconds since 1970, 0 for not yet."""

    key: Key
    state: State
    request: Request
    create_time: int
    start_time: int = 0
    pid: int = 0
    expire_time: int = 0
    exit: ExitRecord | None = None
    extent: Extent = Extent()
    stdin: StdinState = StdinState(open=0)
    followers: int = 0
    waiting: Waiting = Waiting.NOTHING
    waiting_message: str = ""  # the same for a person
    held_offset: int = 0  # with request.waits: nothing from here on is dropped


def final_state(record: ExitRecord) -> State:
    """SUCCEEDED is an exit code of 0 that the command returned by itself, and nothing else."""
    if record.lost is not None:
        return State.LOST
    by_itself = record.reason == record.reason.EXITED
    return State.SUCCEEDED if by_itself and record.exit_code == 0 else State.FAILED


CHANNELS = (Channel.STDOUT, Channel.STDERR)
