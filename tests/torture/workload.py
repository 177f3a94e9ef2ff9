"""What is run: commands of every kind, from a seed, each with the output and the end that it must have."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rexec.v1 import execution_pb2 as wire

from tests.torture import command
from tests.torture.command import LINE, lines

CHANNELS = (1, 2)
CAP = 128 * 1024

Step = tuple[int, int, int, float]  # channel, first line, lines, pause in seconds


@dataclass(frozen=True, slots=True)
class End:
    """How an execution ends. Both codes are None where it was never started, or nobody can know."""

    reason: int
    exit_code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        what = f"exit code {self.exit_code}" if self.exit_code is not None else f"signal {self.signal}"
        return f"{wire.Reason.Name(self.reason)}, {what}"  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Task:
    """One execution: what the command does, what the caller does to it, and what must come of it."""

    number: int
    kind: str
    end: End
    steps: tuple[Step, ...] = ()
    ending: dict[str, int] = field(default_factory=dict)
    on_term: int | str = ""
    child: str = ""  # "holder" keeps its channels open, "daemon" has left session and channels
    input_lines: int = 0  # written to standard input by the caller, and by the command to standard output
    twice: bool = False  # two callers ask for the same execution at once
    act: str = ""  # what the caller does when all of the output is there: "cancel" or "signal"
    partial: bool = False  # it may be ended before it has written everything
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def exec_id(self) -> str:
        return f"t{self.number}"

    @property
    def fails_to_start(self) -> bool:
        return self.end.reason == wire.REASON_START_FAILED

    def arguments(self, witness: str) -> list[str]:
        if self.fails_to_start:
            return ["/nonexistent/program", witness]
        return [sys.executable, "-I", "-S", "-E", command.__file__, witness, self._spec()]

    def written(self, channel: int) -> int:
        """How many lines it writes to a channel."""
        own = sum(count for where, _, count, _ in self.steps if where == channel)
        return own + (self.input_lines if channel == 1 else 0)

    def expected(self, channel: int, start: int, size: int) -> bytes:
        """`size` bytes of a channel from position `start` on; fewer where it ends."""
        first, last = start // LINE, min((start + size + LINE - 1) // LINE, self.written(channel))
        skip = start - first * LINE
        return lines(self.number, channel, first, max(0, last - first))[skip : skip + size]

    def input(self) -> bytes:
        return lines(self.number, 1, self.written(1) - self.input_lines, self.input_lines)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        fields = json.loads(text)
        return cls(**fields | {"end": End(**fields["end"])})

    def _spec(self) -> str:
        spec = {"number": self.number, "steps": self.steps, "stdin": bool(self.input_lines), "end": self.ending}
        return json.dumps(spec | {"on_term": self.on_term, "child": self.child})


def make_tasks(seed: int, count: int, *, daemons: bool) -> list[Task]:
    """The tasks of a seed. Daemons that left everything are found by a cgroup only, when two shims die at once."""
    chance = random.Random(f"workload {seed}")
    makers = [maker for maker in _MAKERS if daemons or maker is not _daemon]
    weights = [_MAKERS[maker] for maker in makers]
    return [chance.choices(makers, weights)[0](number, chance) for number in range(count)]


def _some_lines(chance: random.Random, most: int = 40, pause: float = 0.0) -> tuple[Step, ...]:
    """Both channels by turns, in batches."""
    done, steps = {1: 0, 2: 0}, []
    for _ in range(chance.randint(1, 6)):
        channel, count = chance.choice(CHANNELS), chance.randint(1, most)
        steps.append((channel, done[channel], count, pause * chance.random()))
        done[channel] += count
    return tuple(steps)


def _exits(chance: random.Random) -> dict[str, Any]:
    code = chance.randrange(256)
    return {"end": End(wire.REASON_EXITED, exit_code=code), "ending": {"exit": code}}


def _quick(number: int, chance: random.Random) -> Task:
    return Task(number, "quick", steps=_some_lines(chance), twice=chance.random() < 0.5, **_exits(chance))


def _talker(number: int, chance: random.Random) -> Task:
    steps = _some_lines(chance, 100, pause=0.4)
    return Task(number, "talker", steps=steps, twice=chance.random() < 0.2, **_exits(chance))


def _dies(number: int, chance: random.Random) -> Task:
    death = int(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1, signal.SIGHUP]))
    end = End(wire.REASON_SIGNALED, signal=death)
    return Task(number, "dies of a signal", end, _some_lines(chance, pause=0.1), {"signal": death})


def _flood(number: int, chance: random.Random) -> Task:
    """More than is kept: the rest is an exact gap."""
    steps = tuple((1, index * 300, 300, chance.random() * 0.05) for index in range(chance.randint(4, 8)))
    return Task(number, "flood", steps=steps, options={"max_output": CAP}, **_exits(chance))


def _overflow(number: int, chance: random.Random) -> Task:
    """More than is allowed: the first bytes, exactly as many as that."""
    end = End(wire.REASON_OUTPUT_LIMIT, signal=int(signal.SIGTERM))
    options = {"max_output": CAP, "on_overflow": "terminate", "kill_grace": 60.0}
    return Task(number, "overflow", end, ((1, 0, 800, 0.0),), {"wait": 1}, partial=True, options=options)


def _input(number: int, chance: random.Random) -> Task:
    lines_ = chance.randint(1, 800)
    return Task(number, "standard input", steps=_some_lines(chance, 5), input_lines=lines_, **_exits(chance))


def _cancel(number: int, chance: random.Random) -> Task:
    choices: list[int | str] = ["", "ignore", chance.randrange(256)]
    on_term = chance.choice(choices)
    if on_term == "ignore":
        end, grace = End(wire.REASON_CANCELLED, signal=int(signal.SIGKILL)), 0.3
    elif on_term == "":
        end, grace = End(wire.REASON_CANCELLED, signal=int(signal.SIGTERM)), 60.0
    else:
        end, grace = End(wire.REASON_CANCELLED, exit_code=int(on_term)), 60.0
    child, options = chance.choice(["", "holder"]), {"kill_grace": grace, "drain_timeout": 0.3}
    return Task(number, "cancel", end, _some_lines(chance), {"wait": 1}, on_term, child, act="cancel", options=options)


def _signal(number: int, chance: random.Random) -> Task:
    """A signal that the caller sends is the caller's doing."""
    end = End(wire.REASON_CANCELLED, signal=int(signal.SIGTERM))
    return Task(number, "signal", end, _some_lines(chance), {"wait": 1}, act="signal")


def _timeout(number: int, chance: random.Random) -> Task:
    end = End(wire.REASON_TIMED_OUT, signal=int(signal.SIGTERM))
    options = {"timeout": 0.3 + chance.random(), "kill_grace": 60.0}
    return Task(number, "timeout", end, _some_lines(chance), {"wait": 1}, partial=True, options=options)


def _holder(number: int, chance: random.Random) -> Task:
    options = {"drain_timeout": 0.3}
    return Task(number, "held channel", steps=_some_lines(chance), child="holder", options=options, **_exits(chance))


def _daemon(number: int, chance: random.Random) -> Task:
    return Task(number, "daemon", steps=_some_lines(chance), child="daemon", **_exits(chance))


def _nothing(number: int, chance: random.Random) -> Task:
    return Task(number, "no program", End(wire.REASON_START_FAILED))


_MAKERS: dict[Callable[[int, random.Random], Task], int] = {
    _quick: 30, _talker: 22, _dies: 6, _flood: 6, _overflow: 3, _input: 8, _cancel: 7, _signal: 4, _timeout: 4,
    _holder: 4, _daemon: 4, _nothing: 2,
}  # fmt: skip
