"""What one check found, and what to change."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(enum.StrEnum):
    """How bad it is: a server works; works, but not as well as it could; or does not, or not as it promises."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """A line of the report. `change` is empty where all is well."""

    check: str
    level: Level
    found: str
    change: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, change: str) -> Finding:
    return Finding(check, Level.WARN, found, change)


def fail(check: str, found: str, change: str) -> Finding:
    return Finding(check, Level.FAIL, found, change)
