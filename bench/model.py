"""What a benchmark is: cases in which candidates take turns, and goals."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.lab import Lab

# What one turn measured: the name of a metric, and its value in the metric's unit.
Sample = Mapping[str, float]
Turn = Callable[[], Sample]
Opened = AbstractContextManager[Turn]


class Size(enum.StrEnum):
    """How much is done in a turn."""

    FULL = "full"
    SHORT = "short"  # a minute for a benchmark, or less
    SHORTEST = "shortest"  # seconds: to see that it works

    def pick(self, full: int, short: int, shortest: int) -> int:
        return {Size.FULL: full, Size.SHORT: short, Size.SHORTEST: shortest}[self]


class Skipped(Exception):
    """A candidate cannot take part here; the message says what is missing, and how to get it."""


@dataclass(frozen=True)
class Metric:
    """A number that each turn gives. Times are in ms or s, sizes in KB (1000 bytes) or MB."""

    name: str
    unit: str
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Candidate:
    """Who takes turns. `open` makes it ready, and gives what takes one turn and says what it measured."""

    name: str
    open: Callable[[Lab], Opened]
    once: bool = False  # so slow that it has its turn in the first repetition only


@dataclass(frozen=True)
class Case:
    """One comparison: the same work for all of its candidates. Ratios are of the first metric, to the reference."""

    name: str
    metrics: tuple[Metric, ...]
    candidates: tuple[Candidate, ...]
    reference: str
    warm_up: bool = True  # one more turn for each, first, that does not count

    def with_only(self, wanted: Sequence[str]) -> Case:
        """The same with those candidates whose names contain one of these texts, and the reference; all for none."""
        if not wanted:
            return self
        kept = tuple(
            candidate
            for candidate in self.candidates
            if candidate.name == self.reference or any(text in candidate.name for text in wanted)
        )
        return replace(self, candidates=kept)


@dataclass(frozen=True)
class Cell:
    """A place in the results."""

    case: str
    candidate: str
    metric: str


@dataclass(frozen=True)
class Goal:
    """What a cell's median should be: at most or at least `limit`, or so many times the best of other cells."""

    what: str
    of: Cell
    bound: Literal["at most", "at least"]
    limit: float
    times: tuple[Cell, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A file of bench/benchmarks."""

    name: str
    title: str
    about: str  # what is measured, and how, in a sentence or two
    cases: Callable[[Size], Sequence[Case]]
    goals: tuple[Goal, ...] = ()
    repetitions: int = 3  # unless others are asked for
    pictured: tuple[str, ...] = ()  # names of the cases that the picture shows
