"""What the runner needs to know to start one command: an order that is complete and final.

Everything that could be a default was decided before; a launch travels as JSON from server to runner, which may be of
different versions. So only what differs from its default here is sent, and no default may ever change its meaning: a
newer server can have anything started by an older runner but what that one does not know, and that is refused.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable
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
    WAIT = 3


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


class UnknownFields(ValueError):
    """A launch says something that this version does not know; so it must not be started."""


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
    waiting_timeout: float | None = None  # with WAIT: how long it waits while no holder is attached; None: for ever

    def to_json(self) -> dict[str, Any]:
        written = {
            "initial_stdin": base64.b64encode(self.initial_stdin).decode(),
            "limits": _said(self.limits),
            "confinement": _said(self.confinement),
        }
        said = _said(self)
        return said | {name: value for name, value in written.items() if name in said}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Launch:
        """UnknownFields, or ValueError for a value that this version does not know."""
        return cls(**{name: _READ.get(name, _as_it_is)(value) for name, value in _known(cls, said).items()})


def _as_it_is(value: Any) -> Any:
    return value


# How a field is read that JSON has no type for.
_READ: dict[str, Callable[[Any], Any]] = {
    "arguments": tuple,
    "overflow": Overflow,
    "stdin_mode": StdinMode,
    "initial_stdin": base64.b64decode,
    "stderr_mode": StderrMode,
    "leftovers": Leftovers,
    "limits": lambda said: Limits(**_known(Limits, said)),
    "confinement": lambda said: Confinement(
        **_known(Confinement, said) | ({"groups": tuple(said["groups"])} if "groups" in said else {})
    ),
}


def _said(fields: Any) -> dict[str, Any]:
    """Those fields of a NamedTuple that are not at their default."""
    defaults = fields._field_defaults
    return {name: value for name, value in fields._asdict().items() if name not in defaults or value != defaults[name]}


def _known(kind: Any, said: dict[str, Any]) -> dict[str, Any]:
    unknown = said.keys() - set(kind._fields)
    if unknown:
        raise UnknownFields(f"it does not know {', '.join(sorted(unknown))}")
    return said
