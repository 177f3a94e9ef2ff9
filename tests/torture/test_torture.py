"""The short torture: a minute's worth of what `make torture` does for long, with another seed each time."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.torture.trial import Settings, Trial


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_invented(tmp_path: Path) -> None:
    """Whatever is killed, stopped, filled or cut: each execution ends as it must, with every byte, and runs once."""
    settings = Settings(secrets.randbits(32), executions=120, kills=40)
    trial = Trial(settings, tmp_path / "kept")
    good = trial.run()
    print(trial.table)
    again = f"--seed {settings.seed} --executions {settings.executions} --kills {settings.kills}"
    assert good, "\n".join([*trial.faults, f"kept in {tmp_path / 'kept'}; again: make torture ARGS='{again}'"])
