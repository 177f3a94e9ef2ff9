"""Much output through a slow pipe, in plaintext and with TLS, while server and connections do not last."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.load.figures import Row
from tests.load.slow_pipe import MIB, Place, measure_slow_pipe
from tests.production.site import Site
from tests.servers import Server

LIMIT = 64 * MIB
KILLS, CUTS = 3, 10
# The time for which the reader reads nothing at first, and after each kill of the server.
PAUSE_SECONDS = 5.0
# A file of random bytes is given so often: ten gigabytes need no room of their own.
FILE_BYTES = 500 * 1000 * 1000


def measure_plain(gigabytes: int) -> Sequence[Row]:
    """Measure in plaintext, from a server for development."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory) / "state")
        place = Place(server.target, (), server.state_dir / "spool", server.restart)
        return _measure(place, _file(Path(directory)), gigabytes, server.close)


def measure_tls(gigabytes: int) -> Sequence[Row]:
    """Measure over TLS and with tokens, from a server for production."""
    with tempfile.TemporaryDirectory() as directory:
        big = _file(Path(directory))
        arguments = ["/bin/cat", *[str(big)] * _times(gigabytes)]
        rule = f'[[rule]]\nname = "big"\narguments = {json.dumps(arguments)}\ncallers = ["alice"]\n'
        site = Site(Path(directory) / "site", rules=rule)
        site.start()
        options = (f"--ca={site.path('ca.pem')}", f"--key-file={site.key_file('alice')}")
        place = Place(f"127.0.0.1:{site.token_port}", options, site.state_dir / "spool", site.restart)
        return _measure(place, big, gigabytes, site.close)


def _measure(place: Place, big: Path, gigabytes: int, close: Callable[[], object]) -> Sequence[Row]:
    try:
        found = measure_slow_pipe(place, [big] * _times(gigabytes), limit=LIMIT, kills=KILLS, cuts=CUTS, pause=_pause)
    finally:
        close()
    return found.rows()


def _pause() -> None:
    threading.Event().wait(PAUSE_SECONDS)


def _times(gigabytes: int) -> int:
    return gigabytes * 1000 * 1000 * 1000 // FILE_BYTES


def _file(directory: Path) -> Path:
    path = directory / "big"
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))
    return path
