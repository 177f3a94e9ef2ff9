"""What the runner needs to know to start one command: an order that is complete and final.

Everything that could be a default was decided before; a launch travels as JSON from server to runner.
"""

from __future__ import annotations

import base64
import enum
from typing import Any, NamedTuple


class StdinMode(enum.IntEnum):
    """What the command gets as standard input; numbers as in the wire contract."""

    NULL = 1
    BYTES = 2
    OPEN = 3


class StderrMode(enum.IntEnum):
    """Where standard error goes; numbers as in the wire contract."""

    SEPARATE = 1
    MERGED = 2


class Leftovers(enum.IntEnum):
    """What happens to processes that outlive the command; numbers as in the wire contract."""

    KILL = 1
    KEEP = 2


class Overflow(enum.IntEnum):
    """What happens when output reaches its limit; numbers as in the wire contract."""

    DROP_OLDEST = 1
    TERMINATE = 2


class Limits(NamedTuple):
    """Resource limits as setrlimit(2) takes them; 0 leaves a limit as it is."""

    memory_bytes: int = 0
    cpu_seconds: int = 0
    processes: int = 0
    open_files: int = 0
    file_bytes: int = 0


class Confinement(NamedTuple):
    """What a command may be and use, beyond its limits. Nothing of it is best effort: what cannot be had, fails."""

    user: int | None = None  # uid; None: as the runner
    group: int | None = None  # gid; goes with user
    groups: tuple[int, ...] = ()  # supplementary groups, exactly these; go with user
    no_new_privileges: bool = False
    drop_capabilities: bool = False  # all of them, for it and whatever it executes
    memory_bytes: int = 0  # of its cgroup, all its processes together
    processes: int = 0  # of its cgroup
    cpus: float = 0.0  # of its cgroup, such as 0.5


class Launch(NamedTuple):
    """One command, ready to start. Durations are in seconds."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    working_directory: str
    output_bytes: int
    overflow: Overflow = Overflow.DROP_OLDEST
    stdin_mode: StdinMode = StdinMode.NULL
    initial_stdin: bytes = b""
    stderr_mode: StderrMode = StderrMode.SEPARATE
    timeout: float | None = None
    kill_grace: float = 5.0
    drain_timeout: float = 0.2
    unattended_timeout: float | None = None
    leftovers: Leftovers = Leftovers.KILL
    limits: Limits = Limits()
    umask: int = 0o022
    confinement: Confinement = Confinement()

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"initial_stdin": base64.b64encode(self.initial_stdin).decode()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Launch:
        return cls(
            **fields
            | {
                "arguments": tuple(fields["arguments"]),
                "overflow": Overflow(fields["overflow"]),
                "stdin_mode": StdinMode(fields["stdin_mode"]),
                "initial_stdin": base64.b64decode(fields["initial_stdin"]),
                "stderr_mode": StderrMode(fields["stderr_mode"]),
                "leftovers": Leftovers(fields["leftovers"]),
                "limits": Limits(*fields["limits"]),
                "confinement": _confinement(*fields["confinement"]),
            }
        )


def _confinement(user: int | None, group: int | None, groups: list[int], *rest: Any) -> Confinement:
    return Confinement(user, group, tuple(groups), *rest)
