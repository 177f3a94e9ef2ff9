"""Descriptors: many connections need many."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """As many open files as this process may have. Returns how many that are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def limit() -> int:
    """Return the number of open files that a process may have that raises its limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
