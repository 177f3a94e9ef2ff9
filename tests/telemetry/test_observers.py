"""Whoever looks on harms nobody."""

from __future__ import annotations

import pytest

from rexec_server.core.execution import Execution
from rexec_server.core.observer import Observer, Observers
from tests.policy.records import ended, execution


class Failing(Observer):
    """A mistake in each thing it is told."""

    def ended(self, name: str, execution: Execution) -> None:
        raise RuntimeError("a mistake")


class Seeing(Observer):
    """Remembers what it was told."""

    def __init__(self, trace: str = "") -> None:
        self.seen: list[str] = []
        self._trace = trace

    def trace(self) -> str:
        return self._trace

    def ended(self, name: str, execution: Execution) -> None:
        self.seen.append(name)


def test_one_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """An end is an end, whatever is wrong with who counts it."""
    before, after = Seeing(), Seeing()
    Observers([before, Failing(), after]).ended("name", ended(execution()))
    assert before.seen == after.seen == ["name"]
    assert "an observer of executions failed" in caplog.text


def test_the_trace_is_that_of_whoever_traces() -> None:
    """Only one of them has one, if any."""
    assert Observers([Seeing(), Seeing("00-a-b-01")]).trace() == "00-a-b-01"
    assert Observers([Seeing()]).trace() == ""
