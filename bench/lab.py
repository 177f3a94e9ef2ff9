"""The servers of the candidates: each is started when it is first asked for, and all are ended together."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from bench.model import Skipped
from bench.processes import descendants
from rexec_server.runner.linux import become_subreaper

# File systems in memory: nothing written there is durable, and syncing costs nothing.
_IN_MEMORY = {"tmpfs", "ramfs"}


class Service(Protocol):
    """A server, or a file: made in a directory of its own."""

    def __init__(self, directory: Path) -> None: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=Service)


class Lab:
    """Where candidates run: one directory on a disk, the same for all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._services: dict[type[Any], Any] = {}
        self._open = ExitStack()

    def get(self, kind: type[S]) -> S:
        """The one service of this kind. Skipped, or what its start raised, each time that it is asked for."""
        if kind not in self._services:
            try:
                self._services[kind] = service = kind(self.fresh(kind.__name__))
                self._open.callback(service.close)
            except Exception as error:
                self._services[kind] = error
        found = self._services[kind]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    @contextmanager
    def own(self, kind: type[S], *arguments: object) -> Iterator[S]:
        """One that nobody else uses: to be filled, or to be weighed."""
        service = kind(self.fresh(kind.__name__), *arguments)  # type: ignore[call-arg]
        try:
            yield service
        finally:
            service.close()

    def fresh(self, name: str) -> Path:
        """A new directory that only we can read."""
        path = self.directory / f"{name.lower()}-{secrets.token_hex(3)}"
        path.mkdir(mode=0o700)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@contextmanager
def lab(parent: Path, *, durable: bool = True) -> Iterator[Lab]:
    """A lab in a directory of its own below `parent`, that is removed with all that was written.

    Skipped in memory, unless it need not be durable.
    """
    kind = file_system(parent)
    if durable and kind in _IN_MEMORY:
        raise Skipped(f"{parent} is in memory ({kind}), where syncing costs nothing: give --directory on a disk")
    become_subreaper()
    # Short names: the path of a unix socket has 107 bytes.
    with tempfile.TemporaryDirectory(dir=parent, prefix="rexec-bench-", ignore_cleanup_errors=True) as name:
        try:
            with Lab(Path(name)) as opened:
                yield opened
        finally:
            _end_what_is_left()


def _end_what_is_left() -> None:
    """Of who failed in the middle of something. Orphans have come to us, whatever sessions they made for themselves."""
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was about to go


def file_system(path: Path) -> str:
    """The kind of file system that a directory is on: the mount with the longest path that it is below."""
    place, best, found = os.path.realpath(path), -1, "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if (place + "/").startswith(mount.rstrip("/") + "/") and len(mount) > best:
            best, found = len(mount), kind
    return found


def end_all(process: subprocess.Popen[Any]) -> None:
    """A server, and at once what it has started: what it had to do for that is not our subject."""
    started = descendants(process.pid)
    end(process, within=1)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it went with the server


def end(process: subprocess.Popen[Any], within: float = 20) -> None:
    """TERM, then KILL."""
    process.terminate()
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
