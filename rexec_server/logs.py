"""How each of the programs writes its log: a readable line for people at a terminal, JSON for everything else.

The standard library only, so that server, gateway and runner share it. No line has a token in it, whoever wrote that
line. What a line is about goes into fields of their own: `_log.info("ended", extra={"exec_id": …, "caller": …})`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import time
from typing import Any

STYLES = ("auto", "text", "json")
LEVELS = ("debug", "info", "warning", "error")

# What begins with the base64 of {" and is long: the header of a token, and whatever hangs on it.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{12,}[A-Za-z0-9._%-]*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# A value that could be taken for more than one field.
_UNCLEAR = re.compile(r'[\s"=]|^$')
# What logging itself puts into a record; the rest was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(program: str, style: str = "auto", level: str = "info") -> None:
    """Writes the log to standard error. style: of STYLES; level: the least of LEVELS that is written."""
    if sys.stderr is None:  # who closes it wants to hear nothing
        logging.basicConfig(handlers=[logging.NullHandler()])
        return
    fd = sys.stderr.fileno()
    text = style == "text" or (style == "auto" and os.isatty(fd))
    handler = _Handler(fd)
    handler.setFormatter(TextFormatter() if text else JsonFormatter(program))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class TextFormatter(logging.Formatter):
    """For people: one line, and a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        told = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record).replace("\n", "\\n") + told

    def format(self, record: logging.LogRecord) -> str:
        """The last thing that happens to a record, and so the place that no way around leads past."""
        text = _TOKEN.sub(_mark, super().format(record))
        return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


class JsonFormatter(logging.Formatter):
    """For programs: one JSON object in one line, a traceback included."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "program": self._program,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        # JSON escapes all control characters but one.
        return _TOKEN.sub(_mark, json.dumps(told, default=str)).replace("\x7f", "\\u007f")


class _Handler(logging.Handler):
    """Writes lines to a descriptor. A reader that does not read stops nobody: what has no room is dropped, and counted.

    A full disk is no reason to fail either.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped and self._write(_dropped(self._dropped)):
                self._dropped = 0
            if not self._write(record):
                self._dropped += 1
        except Exception:
            self._dropped += 1

    def _write(self, record: logging.LogRecord) -> bool:
        """False when there is no room. A pipe that has any takes 4 KiB without waiting (pipe(7))."""
        if not any(events & select.POLLOUT for _, events in self._poll.poll(0)):
            return False
        os.write(self._fd, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        return True


def _dropped(count: int) -> logging.LogRecord:
    fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "lines": count}
    return logging.makeLogRecord({**fields, "msg": "lines of this log were dropped: nobody took them"})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, without what is not known."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and value is not None and value != ""
    }


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if _UNCLEAR.search(text) else text


def _mark(found: re.Match[str]) -> str:
    """By this two lines can be seen to be about the same token."""
    import hashlib  # brings OpenSSL along, which the runner has no other use for

    return f"token:{hashlib.sha256(found[0].encode()).hexdigest()[:8]}"
