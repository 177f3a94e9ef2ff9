"""`rexec run -- cat big | slow reader`, while the server is killed and connections are cut: exact, in bounded space."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.load.figures import Row
from tests.torture.proxy import Proxy

MIB = 1 << 20
LOOK_SECONDS = 0.1
# The kernel keeps so much of each channel, and the reader's pipe.
PIPES = 2 * 64 * 1024
SEGMENTS = 8
EXEC_ID = "slow-pipe"


@dataclass(frozen=True)
class Place:
    """A server to try: where it is, what `rexec` needs to call it, and how it is killed and started again."""

    target: str
    options: Sequence[str]
    spool: Path
    restart: Callable[[], object]


@dataclass(frozen=True)
class PipeFigures:
    """The figures of one run."""

    size: int
    seconds: float
    exact: bool
    status: int
    kills: int
    cuts: int
    looks: int
    limit: int
    most_spool: int
    most_memory: int
    said: str

    @property
    def allowed_spool(self) -> int:
        """The limit, a segment more, and what was in the pipes."""
        return self.limit + self.limit // SEGMENTS + PIPES

    def rows(self) -> Sequence[Row]:
        return [
            (f"{self.size:,} bytes, the server killed {self.kills} times, connections cut {self.cuts} times",
             f"{'exact' if self.exact else 'NOT EXACT'}, exit status {self.status}"),
            ("time", f"{self.seconds:.0f} s, {self.size / self.seconds / 1e6:.0f} MB/s"),
            ("most in the spool", f"{self.most_spool:,} bytes in {self.looks} looks; allowed {self.allowed_spool:,}"),
            ("most memory of the client", f"{self.most_memory / 1e6:.1f} MB"),
        ]  # fmt: skip


def measure_slow_pipe(
    place: Place, files: Sequence[Path], *, limit: int, kills: int, cuts: int, pause: Callable[[], object]
) -> PipeFigures:
    """Read `cat files` through a pipe. `pause` returns when the reader may begin, and go on after a kill."""
    proxy = Proxy(place.target)
    line = [sys.executable, "-m", "rexec_client", f"--target={proxy.address}", *place.options, "run", "-n"]
    command = ["/bin/cat", *map(str, files)]
    begun = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*line, "--id", EXEC_ID, f"--max-output={limit}", "--", *command], stdout=subprocess.PIPE, stderr=errors
        )
        watch = _Watch(place.spool, process.pid)
        try:
            pause()
            size = sum(path.stat().st_size for path in files)
            harms = _harms(size, kills, cuts, lambda: (place.restart(), pause()), lambda: proxy.cut(random.Random()))
            digest, came = _read(process, harms)
            status = process.wait()
        finally:
            watch.stop()
            process.kill()
            process.wait()
            proxy.close()
        errors.seek(0)
        said = errors.read().decode()
    exact = came == size and digest == _digest(files)
    seconds = time.monotonic() - begun
    return PipeFigures(
        size, seconds, exact, status, kills, cuts, watch.looks, limit, watch.most_spool, watch.most_memory, said
    )


class _Watch:
    """Looks at the spool and at a process every 100 ms, in a thread."""

    def __init__(self, spool: Path, pid: int) -> None:
        self.looks = self.most_spool = self.most_memory = 0
        self._spool = spool
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.looks += 1
            self.most_spool = max(self.most_spool, _size(self._spool))
            self.most_memory = max(self.most_memory, _peak(self._pid))


def _size(spool: Path) -> int:
    total = 0
    for segment in spool.glob("*/*.log"):
        with suppress(FileNotFoundError):
            total += segment.stat().st_size
    return total


def _peak(pid: int) -> int:
    """Return the largest resident set of a process so far, in bytes; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _harms(
    size: int, kills: int, cuts: int, kill: Callable[[], object], cut: Callable[[], object]
) -> list[tuple[int, Callable[[], object]]]:
    """Return what is done at which byte, spread over all of them."""
    plan = [(size * (number + 1) // (kills + 1), kill) for number in range(kills)]
    plan += [(size * (2 * number + 1) // (2 * cuts), cut) for number in range(cuts)]
    return sorted(plan, key=lambda harm: harm[0])


def _read(process: subprocess.Popen[bytes], harms: list[tuple[int, Callable[[], object]]]) -> tuple[bytes, int]:
    assert process.stdout is not None
    sha, came = hashlib.sha256(), 0
    with process.stdout as pipe:
        while data := os.read(pipe.fileno(), MIB):
            sha.update(data)
            came += len(data)
            while harms and came >= harms[0][0]:
                harms.pop(0)[1]()
    return sha.digest(), came


def _digest(files: Sequence[Path]) -> bytes:
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while data := file.read(MIB):
                sha.update(data)
    return sha.digest()
