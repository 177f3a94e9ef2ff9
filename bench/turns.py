"""Candidates take turns inside each repetition, so that a slow phase of the machine meets all of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from bench.lab import Lab
from bench.model import Candidate, Case, Skipped, Turn
from bench.results import CaseResult, Row

# No turn takes so long, in seconds: what does hangs, and its row says so.
LONGEST_TURN = 180
# Nor is anybody so long in getting ready: filling a server takes a while.
LONGEST_START = 400

Tell = Callable[[str], None]
T = TypeVar("T")


def measure(
    case: Case, lab: Lab, repetitions: int, tell: Tell = lambda _: None, longest: float = LONGEST_TURN
) -> CaseResult:
    """All turns of a case, none of which takes more than `longest` seconds.

    What goes wrong with a candidate ends its part, and is written in its row.
    """
    result = CaseResult(case.name, list(case.metrics), case.reference)
    with ExitStack() as opened:
        players = []
        for candidate in case.candidates:
            row = Row(candidate.name)
            result.rows.append(row)
            tell(f"{case.name}: {candidate.name} gets ready")
            turn = _open(candidate, row, lab, opened)
            if turn is not None:
                players.append((candidate, row, turn))
        if case.warm_up:
            for candidate, row, turn in players:
                if not candidate.once:
                    tell(f"{case.name}: {candidate.name} warms up")
                    _take(row, turn, longest)
                    row.samples.clear()
        for repetition in range(repetitions):
            for candidate, row, turn in rotated(players, repetition):
                if row.error or (candidate.once and repetition):
                    row.samples.append(None)
                else:
                    tell(f"{case.name}: {candidate.name}, {repetition + 1} of {repetitions}")
                    _take(row, turn, longest)
    return result


def rotated(players: Sequence[T], repetition: int) -> list[T]:
    """Each repetition begins with another one, so that nobody always follows the same neighbour first."""
    first = repetition % len(players) if players else 0
    return [*players[first:], *players[:first]]


def _open(candidate: Candidate, row: Row, lab: Lab, opened: ExitStack) -> Turn | None:
    """What takes a turn; it is closed at the end of the case, and what goes wrong there is the row's too."""
    try:
        with _at_most(LONGEST_START):
            context = candidate.open(lab)
            turn = context.__enter__()
    except Skipped as skipped:
        row.skipped = str(skipped)
        return None
    except Exception as error:
        row.error = describe(error)
        return None

    def close() -> None:
        try:
            with _at_most(LONGEST_START):
                context.__exit__(None, None, None)
        except Exception as error:
            row.error = row.error or f"at its end: {describe(error)}"

    opened.callback(close)
    return turn


def _take(row: Row, turn: Turn, longest: float) -> None:
    try:
        with _at_most(longest):
            row.samples.append(dict(turn()))
    except Exception as error:
        row.samples.append(None)
        row.error = describe(error)


def describe(error: BaseException) -> str:
    """One line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """TimeoutError in what takes longer; in the main thread only, as signals are."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
