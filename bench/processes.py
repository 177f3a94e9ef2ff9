"""What processes use: memory and processor time, from /proc."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def pss(pids: Iterable[int]) -> int:
    """Memory of all of them together, in bytes: what several share is counted once."""
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return 0


def rss(pid: int) -> int:
    """Return the resident memory of one process, in bytes: without looking at each of its pages."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """All below a process, by one look at each; without itself."""
    found = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    """Of all of its threads; those of a thread that ends just now are another's by then."""
    found = []
    for path in glob.iglob(f"/proc/{pid}/task/*/children"):
        try:
            found += [int(child) for child in Path(path).read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def program(pid: int) -> str:
    """The name of what it runs; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes, and of their children that they have waited for."""
    return sum(_cpu(pid) for pid in pids)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK
