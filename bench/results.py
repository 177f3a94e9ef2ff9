"""What was measured, as it is kept in bench/results/*.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.model import Metric, Sample


@dataclass
class Row:
    """A candidate's turns, one sample for each repetition; None where it had none."""

    candidate: str
    samples: list[Sample | None] = field(default_factory=list)
    skipped: str = ""  # why it did not take part
    error: str = ""  # what ended its part


@dataclass
class CaseResult:
    """All candidates of one case."""

    name: str
    metrics: list[Metric]
    reference: str
    rows: list[Row] = field(default_factory=list)

    def row(self, candidate: str) -> Row | None:
        return next((row for row in self.rows if row.candidate == candidate), None)


@dataclass
class Result:
    """One benchmark, in one run."""

    benchmark: str
    size: str
    repetitions: int
    seconds: float  # that it took in all
    machine: Mapping[str, str]
    cases: list[CaseResult] = field(default_factory=list)

    def case(self, name: str) -> CaseResult | None:
        return next((case for case in self.cases if case.name == name), None)

    def save(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.benchmark}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Result:
        """ValueError when the file is not a result."""
        try:
            data = json.loads(path.read_text())
            return cls(**data | {"cases": [_case(case) for case in data["cases"]]})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no result of a benchmark: {error!r}") from error


def _case(data: Mapping[str, Any]) -> CaseResult:
    return CaseResult(
        data["name"],
        [Metric(**metric) for metric in data["metrics"]],
        data["reference"],
        [Row(**row) for row in data["rows"]],
    )
