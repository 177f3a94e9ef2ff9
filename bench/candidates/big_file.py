"""A file of many lines, that repeats itself, so that any piece of it can be verified cheaply."""

from __future__ import annotations

import base64
import random
from pathlib import Path

from bench.lab import Lab
from bench.verify import Pattern

LINE = 100
# Lines that compress badly. No candidate compresses, and none must gain if one did.
BLOCK = b"".join(base64.b64encode(random.Random(number).randbytes(74))[: LINE - 1] + b"\n" for number in range(10_000))


def big_file(lab: Lab, size: int) -> Path:
    """The file of `size` bytes, a multiple of a million; it is made once, and in the page cache then."""
    path = lab.directory / f"lines-{size}"
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(size // len(BLOCK)):
                file.write(BLOCK)
    return path


def pattern(size: int) -> Pattern:
    """What verifies it."""
    return Pattern(BLOCK, size)
