"""Results as a run would have made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.model import Metric, Sample
from bench.results import CaseResult, Result, Row

TIME = Metric("time", "ms")


def row(candidate: str, *values: float | None) -> Row:
    samples: list[Sample | None] = [None if value is None else {"time": value} for value in values]
    return Row(candidate, samples)


def case(*rows: Row, reference: str = "ssh") -> CaseResult:
    return CaseResult("one", [TIME], reference, list(rows))


def result(*cases: CaseResult, machine: Mapping[str, str] | None = None) -> Result:
    return Result("some", "full", 3, 1.5, machine or {"processor": "2 cores"}, list(cases))


def values(found: Row) -> Sequence[float | None]:
    return [None if sample is None else sample["time"] for sample in found.samples]
