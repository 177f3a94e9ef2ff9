"""A runner alone, where a test needs no server."""

from __future__ import annotations

from tests.runner.conftest import runner, start_runner

__all__ = ["runner", "start_runner"]
