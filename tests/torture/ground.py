"""The disk under the state directory: small, and so easily filled, where a tmpfs can be mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from tests.waiting import eventually


class Ground:
    """A directory with a short path: those of unix sockets are limited. `why_not` says why it cannot be filled."""

    def __init__(self, size: int) -> None:
        self.path = Path(mkdtemp(prefix="rexec-torture-"))
        self.disk = self.path / "disk"
        self.disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(self.disk)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        self.why_not = "" if mounted.returncode == 0 else f"no small disk: {mounted.stderr.strip()}"

    @contextmanager
    def full(self) -> Iterator[None]:
        """No byte of room for the time of the block, but for what is freed meanwhile."""
        ballast = self.disk / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                for size in (1 << 24, 1 << 20, 1 << 16, 4096):
                    with suppress(OSError):
                        while True:
                            os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def keep(self, where: Path) -> None:
        """Copies everything that is no socket and no FIFO."""
        shutil.copytree(self.path, where, ignore=_special, dirs_exist_ok=True, symlinks=True)

    def close(self) -> None:
        if not self.why_not:
            eventually(
                lambda: subprocess.run(["umount", str(self.disk)], capture_output=True).returncode == 0, within=60
            )
        shutil.rmtree(self.path)


def _special(directory: str, names: list[str]) -> set[str]:
    paths = {name: Path(directory, name) for name in names}
    return {name for name, path in paths.items() if not (path.is_file() or path.is_dir())}
