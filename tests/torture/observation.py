"""What was seen of one execution, from its start to the last look at it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rexec.v1 import execution_pb2 as wire

from tests.torture.reading import Reading
from tests.torture.workload import Task


@dataclass(slots=True)
class Trouble:
    """A call that failed although the client tries again by itself: only what the torture did may explain it."""

    call: str
    code: str
    message: str
    at: float  # CLOCK_MONOTONIC seconds

    def __str__(self) -> str:
        return f"{self.call} failed: {self.code}: {self.message}"


@dataclass(slots=True)
class Observation:
    """Times are seconds on CLOCK_MONOTONIC."""

    task: Task
    since: float = field(default_factory=time.monotonic)
    until: float = 0.0
    execution: wire.Execution | None = None  # as it ended
    reading: Reading | None = None  # by the one who followed it from its start
    again: Reading | None = None  # of everything that is kept, after all
    last: wire.Execution | None = None  # as it is after all
    acted: bool = False  # the caller has done to it what the task says
    input_refused: bool = False
    troubles: list[Trouble] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    runs: int = 0  # as its witness tells
    name: str = ""  # of its directory in the spool
