"""Texts that people write for times and sizes, as numbers."""

from __future__ import annotations

import math
import re

# As in core.command: longer durations are mistakes, and overflow clocks.
MAX_SECONDS = 100 * 365 * 86400.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds, from a text such as 500ms, 30s, 5m, 24h or 7d. ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration; write for example 30s, 5m or 24h")
    return float(match[1]) * _SECONDS[match[2]]


def duration_or_never(text: str) -> float:
    """Return seconds, from a text such as 1h; `never` is infinity. ValueError."""
    return math.inf if text.strip() == "never" else duration(text)


def check_wait(seconds: float) -> float:
    """Check that a time to wait is more than nothing, or infinity. ValueError."""
    if not 0 < seconds <= MAX_SECONDS and seconds != math.inf:
        raise ValueError(f"{seconds:g} s is not a time to wait; write for example 30m, 24h or never")
    return seconds


def size(text: str) -> int:
    """Bytes, from a text such as 512K, 64M or 10G (powers of 1024). ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size; write for example 64M or 10G")
    factor: int = 1024 ** " KMGT".index(match[2].upper() or " ")
    return int(match[1]) * factor
