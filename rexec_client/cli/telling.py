"""Words to the person at the terminal: always on stderr, always one line, always marked as rexec's own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys


def tell(message: str) -> None:
    """Say something without getting into what the command itself writes."""
    line = " ".join(message.split())
    mark = "\x1b[1mrexec:\x1b[0m" if _colours() else "rexec:"
    with contextlib.suppress(OSError):  # when there is nobody to tell
        os.write(2, f"{mark} {line}\n".encode(errors="replace"))


class Announcer(logging.Handler):
    """Tells the person what the library only logs: that a connection is lost, and found again."""

    def __enter__(self) -> None:
        logger = logging.getLogger("rexec_client")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rexec_client").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())


def hush_stdout() -> None:
    """Nobody reads stdout any more: keep Python from complaining about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _colours() -> bool:
    return os.isatty(2) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
