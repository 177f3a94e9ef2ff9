"""The gateway's log: no line of it has a token in it, whoever wrote that line; and each message is one line."""

from __future__ import annotations

import hashlib
import logging
import re
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# What begins with the base64 of {" and is long: the header of a token, and whatever hangs on it.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{12,}[A-Za-z0-9._%-]*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def configure() -> None:
    """Writes the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def method_name(method: str) -> str:
    """A request's method, if it is one: it is the caller's text."""
    return method if method in _METHODS else "?"


class _Formatter(logging.Formatter):
    """The last thing that happens to a record, and so the place that no way around leads past."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return super().formatMessage(record).replace("\n", "\\n")

    def format(self, record: logging.LogRecord) -> str:
        text = _TOKEN.sub(_mark, super().format(record))
        return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def _mark(found: re.Match[str]) -> str:
    """By this two lines can be seen to be about the same token."""
    return f"token:{hashlib.sha256(found[0].encode()).hexdigest()[:8]}"
