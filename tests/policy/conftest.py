"""Fixtures: an audit in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_server.policy.audit import Audit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(path: Path) -> Iterator[Audit]:
    audit = Audit.open(str(path))
    yield audit
    audit.close()
