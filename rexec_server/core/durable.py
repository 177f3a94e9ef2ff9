"""Names that survive a power cut: a file is on disk when its directory is, too."""

from __future__ import annotations

import os
from contextlib import suppress

from rexec_server.core.spool import open_regular


def sync_directory(path: str, dir_fd: int | None = None) -> None:
    """Returns when the names in a directory are on disk. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: str, mode: int = 0o777) -> None:
    """As os.makedirs, for a directory that may be there; its name is on disk then. OSError."""
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_directories(parent)
    with suppress(FileExistsError):
        os.mkdir(path, mode)
    with suppress(PermissionError):  # one that we may not even list was there before us
        sync_directory(parent)


def replace_file(name: str, data: bytes, directory: int) -> None:
    """Writes a small file anew: after a power cut it is the old one or the new one, whole. OSError."""
    draft = f"{name}.tmp"
    fd = open_regular(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, directory)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
