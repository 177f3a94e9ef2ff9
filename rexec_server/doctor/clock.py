"""The clock: tokens have a short life, and what is older than the boot is told by times of files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject

# 2026-01-01: no rexec is older.
_EARLIEST = 1_767_225_600.0
_AHEAD_SECONDS = 300.0


def check_clock(subject: Subject) -> Iterator[Finding]:
    host = subject.host
    keep = "let chrony or systemd-timesyncd keep the clock"
    written = _newest(subject)
    if host.now < _EARLIEST:
        yield fail("clock", "it is before 2026", f"set it; {keep}")
    elif written is not None and written > host.now + _AHEAD_SECONDS:
        yield fail(
            "clock",
            f"the state directory was written {written - host.now:.0f} s in the future",
            f"set the clock forward again, or wait; {keep}: expiry, retention and token times go by it",
        )
    elif host.boot_time < _EARLIEST:
        yield warn("clock", "it was wrong when the machine started, and was set later", f"{keep} from the start on")
    elif host.synchronised is False and not subject.config.dev:
        yield warn("clock", "nobody synchronises it; tokens of callers whose clock differs are refused", keep)
    else:
        known = {True: "synchronised", False: "not synchronised", None: "whether it is synchronised is not told"}
        yield ok("clock", known[host.synchronised])


def _newest(subject: Subject) -> float | None:
    """When the index was last written."""
    found = []
    for suffix in ("", "-wal"):
        try:
            found.append(os.stat(subject.index + suffix).st_mtime)
        except OSError:
            pass  # not there
    return max(found, default=None)
