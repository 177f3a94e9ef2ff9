"""The command under torture: it says that it ran, writes numbered lines, and ends as it was told.

It runs alone, as `python -I -S -E command.py WITNESS SPEC`, with nothing but the standard library.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import zlib

LINE = 256
_FILLER = b"." * 224


def lines(number: int, channel: int, first: int, count: int) -> bytes:
    """Lines of an execution's channel: whose they are, which, a checksum; LINE bytes each."""
    return b"".join(_line(number, channel, index) for index in range(first, first + count))


def _line(number: int, channel: int, index: int) -> bytes:
    body = b"%07d %d %08d %s" % (number, channel, index, _FILLER)
    return b"%s %08x   \n" % (body, zlib.crc32(body))


def main() -> None:
    witness, spec = sys.argv[1], json.loads(sys.argv[2])
    _testify(witness)
    _obey_term(spec["on_term"])
    _have_child(spec["child"])
    for channel, first, count, pause in spec["steps"]:
        _write(channel, lines(spec["number"], channel, first, count))
        if pause:
            time.sleep(pause)
    if spec["stdin"]:
        while data := os.read(0, 65536):
            _write(1, data)
    _end(spec["end"])


def _testify(witness: str) -> None:
    """Before anything else: one line for each time that it is run."""
    fd = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.write(fd, b"%d\n" % os.getpid())
    os.close(fd)


def _obey_term(on_term: int | str) -> None:
    if on_term == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif isinstance(on_term, int):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(on_term))


def _have_child(kind: str) -> None:
    """A child that outlives us: a holder keeps our channels open, a daemon has left our session and them."""
    if not kind or _fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "daemon":
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    while True:
        signal.pause()


def _fork() -> int:
    while True:
        try:
            return os.fork()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            time.sleep(0.01)  # the torture has taken all process ids, for a while


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _end(end: dict[str, int]) -> None:
    if "exit" in end:
        os._exit(end["exit"])
    if "signal" in end:
        if end["signal"] != signal.SIGKILL:
            signal.signal(end["signal"], signal.SIG_DFL)
        os.kill(os.getpid(), end["signal"])
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
