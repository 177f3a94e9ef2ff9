"""Where a stream begins: where an earlier one ended, if the request says so."""

from __future__ import annotations

from flask import request

from rexec_server.gateway.problems import Problem

_LARGEST = 2**63 - 1


def start_offset(default: str = "0") -> int:
    """`Last-Event-ID`, which a browser sends by itself when it connects again, or else `default`."""
    value = request.headers.get("Last-Event-ID") or default
    if not (value.isascii() and value.isdigit() and int(value[:20]) <= _LARGEST):
        raise Problem(400, "Last-Event-ID and offset are a number of bytes: the id of the last event that came")
    return int(value[:20])
