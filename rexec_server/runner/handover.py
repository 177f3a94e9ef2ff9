"""What a runner leaves to the program that it becomes: open descriptors, whose children are whose, what it owes.

All else is in the spool. The note is JSON in a memory file that stays open over the exec; its number is in the
environment, so that the arguments stay those that somebody wrote. A version that has other parts of its own adds keys,
and leaves out those at which it has nothing; FORMAT changes only when an older or newer one could not go on with it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FORMAT = 1
_VARIABLE = "REXEC_RUNNER_HANDOVER"


@dataclass
class Held:
    """Descriptors of one execution that may be the last of their kind: what is in a FIFO goes with its last holder."""

    directory: int
    outputs: dict[str, int] = field(default_factory=dict)  # by channel number
    stdin: int = -1
    pidfd: int = -1  # of a leader that is not our child: only a pidfd from before its end tells its status


@dataclass
class Handover:
    """Numbers are descriptors, but for the pids of shims, leaders and orphans."""

    state_dir: int
    lock: int
    listener: int
    heritage: tuple[str, tuple[int, int], int]
    connections: list[int] = field(default_factory=list)
    owed: list[tuple[int, int]] = field(default_factory=list)  # connection, number of its request to upgrade
    executions: dict[str, Held] = field(default_factory=dict)
    shims: dict[int, str] = field(default_factory=dict)
    leaders: dict[int, str] = field(default_factory=dict)
    orphans: dict[int, str] = field(default_factory=dict)
    older: list[str] = field(default_factory=list)  # executions from an earlier boot
    instance: str = ""  # the name of this runner, which its successor keeps
    received: list[str] = field(default_factory=list)  # executions whose start came, or is refused

    @property
    def descriptors(self) -> list[int]:
        """All that must stay open over the exec."""
        held = self.executions.values()
        of_executions = [
            fd for one in held for fd in (one.directory, *one.outputs.values(), one.stdin, one.pidfd) if fd >= 0
        ]
        return [self.state_dir, self.lock, self.listener, *self.connections, *of_executions]

    def write(self) -> dict[str, str]:
        """Makes the note, and keeps all that is in it open over an exec. Returns the environment for that. OSError."""
        note = os.memfd_create("handover", 0)
        try:
            with open(note, "wb", closefd=False) as file:
                file.write(json.dumps(asdict(self)).encode())
            for fd in self.descriptors:
                os.set_inheritable(fd, True)
        except OSError:
            os.close(note)
            raise
        return {_VARIABLE: str(note)}

    def withdraw(self, environment: dict[str, str]) -> None:
        """The exec failed: all is as before."""
        os.close(int(environment[_VARIABLE]))
        for fd in self.descriptors:
            os.set_inheritable(fd, False)

    @classmethod
    def take(cls) -> Handover | None:
        """What our predecessor in this process left, if there was one."""
        note = os.environ.pop(_VARIABLE, None)
        if note is None:
            return None
        with open(int(note), "rb") as file:
            file.seek(0)
            handover = cls._from_json(file.read())
        for fd in handover.descriptors:
            os.set_inheritable(fd, False)
        return handover

    @classmethod
    def _from_json(cls, data: bytes) -> Handover:
        left = json.loads(data)
        handover = cls(**_known(cls, left))
        score, files, group = handover.heritage
        handover.heritage = score, (files[0], files[1]), group
        handover.executions = {name: Held(**_known(Held, held)) for name, held in left["executions"].items()}
        for kin in ("shims", "leaders", "orphans"):
            setattr(handover, kin, {int(pid): name for pid, name in getattr(handover, kin).items()})
        return handover


def _known(kind: type[Handover | Held], left: dict[str, Any]) -> dict[str, Any]:
    """Without what another version has added."""
    return {part.name: left[part.name] for part in fields(kind) if part.name in left}
