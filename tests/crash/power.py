"""A power cut, simulated: a copy of a state directory, less what the documented order had not put on disk.

A small model of `docs/architecture.md`, order of durable writes. At the instant of the copy everybody who writes is
stopped. Then, by seeded chance, each thing that was not certain to be on disk is lost: files and their ends are cut,
zeroed or gone, a rename is undone, the index's log is torn after the last commit that somebody relied on.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from rexec_server.core.about import ABOUT
from rexec_server.core.boot import boot_id
from rexec_server.core.spool import EXIT, EXIT_DRAFT, FIFO_OUT, INDEX_SUFFIX, SEGMENT_SUFFIX, START
from tests.servers import Server

ANOTHER_BOOT = "00000000-1111-2222-3333-444444444444"
_WAL_HEAD, _FRAME_HEAD = 32, 24
# In the shared-memory file: how many frames of the log may be in the index file by now (walformat.html, 2.2.1).
_BACKFILLED_AT = 128


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Server, runner and shims do nothing for the time of this block; the commands go on."""
    runner = psutil.Process(server.runner_pid)
    held: list[psutil.Process] = [psutil.Process(server.pid), runner]
    try:
        for process in held:
            process.suspend()
        held += runner.children()
        for process in held[2:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in held:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def copy(source: Path, target: Path) -> None:
    """What a disk would have, had all of it been written; sockets are no part of that."""
    target.mkdir()
    for entry in os.scandir(source):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            copy(Path(entry.path), target / entry.name)
        elif stat.S_ISFIFO(mode):
            os.mkfifo(target / entry.name, 0o600)
        elif stat.S_ISREG(mode):
            shutil.copy2(entry.path, target / entry.name)


def lose(state_dir: Path, chance: random.Random, relied_on: Callable[[sqlite3.Connection], bool]) -> None:
    """Loses what was not certain, and makes the boot that wrote the rest another than this.

    relied_on: whether all that was answered is in the index; the index's log is torn only after that.
    """
    _tear_index(state_dir / "index.sqlite", chance, relied_on)
    for name in ("server.pid", "runner.pid"):
        _damage(state_dir / name, chance)
    _forget_boot(state_dir / "spool" / ABOUT)
    for directory in sorted((state_dir / "spool").iterdir()):
        if directory.is_dir():
            _forget_boot(directory / START)
            (_lose_of_ended if (directory / EXIT).exists() else _lose_of_live)(directory, chance)


def _lose_of_ended(directory: Path, chance: random.Random) -> None:
    """The record and all names are on disk; the start record is not, and the log only when the FIFOs are gone."""
    if chance.random() < 0.5:
        (directory / EXIT).rename(directory / EXIT_DRAFT)
    _damage(directory / START, chance, gone=False)
    if (directory / FIFO_OUT).exists():
        _lose_of_log(directory, chance, gone=False)
    elif chance.random() < 0.3:
        os.mkfifo(directory / FIFO_OUT, 0o600)  # its unlink was undone


def _lose_of_live(directory: Path, chance: random.Random) -> None:
    """Nothing is certain, not even the directory."""
    if chance.random() < 0.3:
        return shutil.rmtree(directory)
    for path in sorted(directory.iterdir()):
        if path.suffix not in (SEGMENT_SUFFIX, INDEX_SUFFIX):
            _damage(path, chance)
    _lose_of_log(directory, chance, gone=True)


def _lose_of_log(directory: Path, chance: random.Random, gone: bool) -> None:
    for path in sorted(directory.iterdir()):
        if path.suffix in (SEGMENT_SUFFIX, INDEX_SUFFIX):
            _damage(path, chance, gone)


def _damage(path: Path, chance: random.Random, gone: bool = True) -> None:
    """Keeps a file, or loses it, or its end from some byte on, or has zeros there up to the end of a page, or all."""
    if not path.exists():
        return
    if path.is_fifo():
        return path.unlink() if gone and chance.random() < 0.3 else None
    data = path.read_bytes()
    place = chance.randrange(len(data) + 1)
    match chance.choice(["kept", "kept", "cut", "zeros", "empty", *(["gone"] if gone else [])]):
        case "cut":
            path.write_bytes(data[:place])
        case "zeros":
            path.write_bytes(data[:place].ljust(len(data), b"\0"))
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()


def _forget_boot(path: Path) -> None:
    if path.exists():
        path.write_bytes(path.read_bytes().replace(boot_id().encode(), ANOTHER_BOOT.encode()))


def _tear_index(path: Path, chance: random.Random, relied_on: Callable[[sqlite3.Connection], bool]) -> None:
    """Tears the log of the index behind the first commit that has all that was answered, or behind a later one."""
    log, shared = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
    data = log.read_bytes()
    (backfilled,) = struct.unpack_from("=I", shared.read_bytes(), _BACKFILLED_AT)
    shared.write_bytes(chance.randbytes(chance.choice([0, 32768])))  # memory, and nothing else
    ends = [end for number, end in _commits(data) if number >= backfilled] or [0]
    low, high = 0, len(ends) - 1
    assert in_index(path, data[: ends[high]], relied_on), "something was answered before it was in the index"
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if in_index(path, data[: ends[middle]], relied_on) else (middle + 1, high)
    keep = chance.randrange(ends[low], len(data) + 1) if chance.random() < 0.7 else ends[low]
    log.write_bytes(data[:keep] + chance.choice([b"", b"\0" * 5000, chance.randbytes(5000)]))
    with closing(sqlite3.connect(path)) as index:
        assert index.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert relied_on(index)
        index.execute("UPDATE execution SET boot_id = ?", (ANOTHER_BOOT,))
        index.commit()


def _commits(log: bytes) -> Iterator[tuple[int, int]]:
    """The number of frames up to each commit, and where it ends (walformat.html, 4.1 and 4.2)."""
    if len(log) < _WAL_HEAD:
        return
    (page,) = struct.unpack_from(">I", log, 8)
    salts, size = log[16:24], _FRAME_HEAD + page
    for number in range((len(log) - _WAL_HEAD) // size):
        start = _WAL_HEAD + number * size
        if log[start + 8 : start + 16] != salts:
            return  # of an earlier round
        if struct.unpack_from(">I", log, start + 4)[0]:
            yield number + 1, start + size


def in_index(path: Path, log: bytes, relied_on: Callable[[sqlite3.Connection], bool]) -> bool:
    """Asks a copy of the index with that much of its log."""
    probe = path.with_name("probe.sqlite")
    shutil.copy2(path, probe)
    probe.with_name("probe.sqlite-wal").write_bytes(log)
    try:
        with closing(sqlite3.connect(probe)) as index:
            return relied_on(index)
    finally:
        for suffix in ("", "-wal", "-shm"):
            probe.with_name(f"probe.sqlite{suffix}").unlink(missing_ok=True)
