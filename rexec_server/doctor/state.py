"""The state directory and the file system that it is on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject

# Locks there are another machine's too, or none, and inotify does not tell what others write.
_ELSEWHERE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs", "virtiofs"}
_VANISHING = {"tmpfs", "ramfs"}
# Start record, exit record, FIFOs, control socket, lock, segments with their indexes.
FILES_OF_AN_EXECUTION = 16


def check_directory(subject: Subject) -> Iterator[Finding]:
    """It is there, it is ours, and nobody else can write in it."""
    path, name = subject.state_dir, "state directory"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        parent = _existing_parent(path)
        if os.access(parent, os.W_OK):
            yield ok(name, f"{path} is not there yet; the server makes it")
        else:
            yield fail(
                name, f"{path} is not there, and we cannot write in {parent}", f"make it, for the server's user: {path}"
            )
        return
    except OSError as error:
        yield fail(name, f"{path}: {error.strerror}", "let the server's user reach it")
        return
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        yield fail(name, f"{path} is not a directory", "move it away, or name another with --state-dir")
    elif status.st_uid != subject.host.uid:
        yield fail(
            name,
            f"{path} belongs to uid {status.st_uid}, and this is uid {subject.host.uid}",
            "run the server, and doctor, as its owner, or chown it",
        )
    elif mode & 0o022:
        yield fail(name, f"others can write in {path} ({mode:04o})", f"chmod go-w {path}")
    elif mode & 0o055 and not subject.config.dev:
        yield warn(name, f"others can look into {path} ({mode:04o})", f"chmod 0700 {path}")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield fail(name, f"we cannot write in {path} ({mode:04o})", f"chmod u+rwx {path}, or mount it for writing")
    else:
        yield ok(name, f"{path}, ours, {mode:04o}")


def check_filesystem(subject: Subject) -> Iterator[Finding]:
    path = _existing_parent(subject.state_dir)
    kind, lacks = subject.host.filesystem(path), subject.host.lacks(path)
    if kind in _ELSEWHERE:
        yield fail(
            "file system", f"{path} is on {kind}", "use a local one: locks and wake-ups do not work over a network"
        )
    elif lacks:
        yield fail("file system", f"{kind} lacks {', '.join(lacks)}", "use ext4, xfs, btrfs or tmpfs")
    elif kind in _VANISHING:
        yield warn("file system", f"{kind}: output and records go with the next restart of the machine", "use a disk")
    elif lacks is None:
        yield warn("file system", f"{kind}: whether it has what is needed could not be tried", "use ext4, xfs or btrfs")
    else:
        yield ok("file system", kind)


def check_room(subject: Subject) -> Iterator[Finding]:
    """Room for the output of what may run at once."""
    config = subject.config
    room = subject.host.room(_existing_parent(subject.state_dir))
    wanted = config.output_bytes * config.max_running
    if room.free_bytes < config.output_bytes:
        yield fail(
            "free space",
            f"{_size(room.free_bytes)}: not enough for one execution",
            "make room, or lower --output-bytes",
        )
    elif room.free_bytes < wanted:
        yield warn(
            "free space",
            f"{_size(room.free_bytes)}; {config.max_running} executions may keep {_size(wanted)}",
            "make room, or lower --max-running, --output-bytes or --keep-bytes",
        )
    else:
        yield ok("free space", _size(room.free_bytes))
    if room.inodes is None:
        return
    if room.inodes < FILES_OF_AN_EXECUTION:
        yield fail("free inodes", f"{room.inodes}: not enough for one execution", "remove files, or lower --keep-count")
    elif room.inodes < FILES_OF_AN_EXECUTION * config.max_running:
        yield warn(
            "free inodes",
            f"{room.inodes}; {config.max_running} executions have {FILES_OF_AN_EXECUTION} files each",
            "remove files, or lower --max-running or --keep-count",
        )
    else:
        yield ok("free inodes", str(room.inodes))


def _existing_parent(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"
