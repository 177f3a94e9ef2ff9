"""What a Dockerfile says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One of it: its word, and what follows."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """What follows, as it is split; a JSON array where it is one."""
        found: list[str] = json.loads(self.rest) if self.rest.startswith("[") else self.rest.split()
        return found


def read(path: Path) -> list[Instruction]:
    """Its instructions, without comments and with lines that go on joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in whole.splitlines()]
