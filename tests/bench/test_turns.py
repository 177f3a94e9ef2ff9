"""Who has a turn when, and what becomes of who fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.lab import Lab
from bench.model import Candidate, Case, Skipped, Turn
from bench.results import Row
from bench.turns import measure
from tests.bench.results import TIME, values

Work = Callable[[], float]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as opened:
        yield opened


class Order:
    """Candidates that write down when they are opened, have a turn, and are closed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def candidate(self, name: str, work: Work = lambda: 1.0, *, once: bool = False) -> Candidate:
        @contextmanager
        def opened(_: Lab) -> Iterator[Turn]:
            self.seen.append(f"open {name}")
            yield lambda: self._turn(name, work)
            self.seen.append(f"close {name}")

        return Candidate(name, opened, once)

    def _turn(self, name: str, work: Work) -> dict[str, float]:
        self.seen.append(name)
        return {"time": work()}


def a_case(*candidates: Candidate, warm_up: bool = False) -> Case:
    return Case("one", (TIME,), candidates, candidates[0].name, warm_up)


def test_candidates_take_turns_inside_each_repetition(lab: Lab) -> None:
    """All of them in each repetition, which each begins with another one."""
    order = Order()
    measure(a_case(order.candidate("a"), order.candidate("b"), order.candidate("c")), lab, 3)
    assert order.seen[3:12] == [*"abc", *"bca", *"cab"]
    assert order.seen[:3] == ["open a", "open b", "open c"]
    assert order.seen[12:] == ["close c", "close b", "close a"]


def test_a_warm_up_does_not_count(lab: Lab) -> None:
    """Everybody has one turn more than there are samples."""
    order = Order()
    found = measure(a_case(order.candidate("a"), order.candidate("b"), warm_up=True), lab, 2)
    assert (order.seen.count("a"), order.seen.count("b")) == (3, 3)
    assert [values(row) for row in found.rows] == [[1.0, 1.0], [1.0, 1.0]]


def test_a_slow_one_has_one_turn_beside_the_others_first(lab: Lab) -> None:
    """It has no warm-up, and its sample is in the first repetition's place."""
    order = Order()
    found = measure(a_case(order.candidate("a"), order.candidate("slow", once=True), warm_up=True), lab, 3)
    assert order.seen.count("slow") == 1
    assert values(found.rows[1]) == [1.0, None, None]


def test_who_fails_is_a_row_and_the_others_go_on(lab: Lab) -> None:
    """The error is in its row, with the turns that it had before."""
    outcomes = iter([2.0, None])

    def work() -> float:
        outcome = next(outcomes)
        if outcome is None:
            raise ConnectionError("went\naway")
        return outcome

    order = Order()
    found = measure(a_case(order.candidate("a"), order.candidate("weak", work)), lab, 3)
    assert values(found.rows[0]) == [1.0] * 3
    assert values(found.rows[1]) == [2.0, None, None]
    assert found.rows[1].error == "ConnectionError: went away"
    assert "close weak" in order.seen


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Skipped("there is no sshd here"), Row("other", skipped="there is no sshd here")),
        (OSError("no port is free"), Row("other", error="OSError: no port is free")),
    ],
)
def test_who_cannot_begin_says_why(lab: Lab, error: Exception, expected: Row) -> None:
    """What is missing is not an error, and neither stops the others."""

    @contextmanager
    def opened(_: Lab) -> Iterator[Turn]:
        raise error
        yield

    found = measure(a_case(Order().candidate("a"), Candidate("other", opened)), lab, 1)
    assert found.rows[1] == expected
    assert values(found.rows[0]) == [1.0]


def test_who_hangs_is_stopped(lab: Lab) -> None:
    """A turn that never ends is an error of its row."""
    found = measure(a_case(Order().candidate("a", lambda: float(threading.Event().wait()))), lab, 1, longest=0.1)
    assert found.rows[0].error == "TimeoutError: took more than 0.1 s"


def test_who_fails_at_the_end_keeps_what_was_measured(lab: Lab) -> None:
    """The row has its samples, and says what went wrong afterwards."""

    @contextmanager
    def opened(_: Lab) -> Iterator[Turn]:
        yield lambda: {"time": 5.0}
        raise RuntimeError("does not stop")

    found = measure(a_case(Candidate("a", opened)), lab, 1)
    assert values(found.rows[0]) == [5.0]
    assert found.rows[0].error == "at its end: RuntimeError: does not stop"


def test_a_service_is_started_once(lab: Lab) -> None:
    """All candidates share it; one that cannot start is not tried again."""
    started = []

    class Broken:
        def __init__(self, directory: Path) -> None:
            started.append(directory)
            raise Skipped("it is not installed")

        def close(self) -> None: ...

    for _ in range(2):
        with pytest.raises(Skipped, match="not installed"):
            lab.get(Broken)
    assert len(started) == 1
