"""A server's wall clock, which a test sets."""

from __future__ import annotations

import os
from pathlib import Path


class WallClock:
    """A file with the seconds by which the wall clock of programs with this environment is ahead."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.step(0)

    @property
    def environment(self) -> dict[str, str]:
        places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": ":".join(places), "REXEC_TEST_CLOCK": str(self._path)}

    def step(self, seconds: float) -> None:
        """Sets the clock, for all of them at once."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(str(seconds))
        draft.rename(self._path)
