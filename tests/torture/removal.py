"""Files, sockets and directories that are removed under what uses them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Each of a living execution; the end is exact without it, or LOST where its shim dies too.
FILES = ("start", "lock", "out", "err", "request")
SOCKETS = ("runner.sock", "runner.pid", "server.pid")
CONTROL = "control"
DIRECTORY = "remove a directory"


def removed(file: str) -> str:
    """Return the name of the deed."""
    return f"remove {file}"


def choose(spool: Path, chance: random.Random) -> Path | None:
    """Return an execution whose command runs, or None when none does just now."""
    found = sorted(_living(spool))
    return chance.choice(found) if found else None


def _living(spool: Path) -> Iterator[Path]:
    for entry in os.scandir(spool):
        path = Path(entry.path)
        with suppress(OSError):
            if not entry.name.startswith(".") and (path / "start").stat().st_size and not (path / "exit").exists():
                yield path


def unlink(path: Path) -> bool:
    """Removes a name. Returns False when it was not there."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Remove it as `rm -rf` does: what is made in it meanwhile is removed with the rest, the second time."""
    for _ in range(2):
        shutil.rmtree(path, ignore_errors=True)
