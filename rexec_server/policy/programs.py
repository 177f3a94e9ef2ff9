"""Whether a program is still the one that the operator meant, and whether it would run what a caller says."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_LINKS = 40
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH

# Their arguments or input can be a program, or start one: who fills in a word of them may run anything.
_LOADER_NAMES = """
    sh ash bash dash ksh mksh zsh fish csh tcsh rbash busybox toybox
    python pypy perl ruby irb node nodejs npx npm yarn pnpm bun deno php lua luajit tclsh wish expect guile java jshell
    erl elixir iex julia R Rscript gdb lldb pdb ghci ocaml racket sbcl groovy scala kotlin go cargo dotnet pwsh uv uvx
    pip pipx poetry gem bundle rake ant mvn gradle make gmake cmake ninja gcc g++ cc c++ clang ld
    awk gawk mawk nawk original-awk sed ed ex vi vim vim.basic vim.tiny view nvim emacs nano less more most man
    find xargs parallel env nohup nice ionice timeout time stdbuf setsid setpriv setarch chroot unshare nsenter flock
    taskset chrt prlimit choom runcon fakeroot sort split install ip iptables journalctl dmesg gpg ssh-keygen
    watch script screen tmux at batch crontab logrotate run-parts start-stop-daemon systemd-run systemctl machinectl
    sudo su sg newgrp runuser doas pkexec capsh ssh scp sftp rsync git svn hg curl wget ftp nc ncat netcat nc.openbsd
    nc.traditional socat telnet openssl tar bsdtar zip unzip 7z cpio ar rpm dpkg apt apt-get yum dnf
    docker podman nerdctl ctr crictl kubectl helm buildah runc crun bwrap lxc virsh ansible ansible-playbook
    sqlite3 mysql psql redis-cli mongo strace ltrace valgrind perf tcpdump nmap mount eval
"""
_LOADERS = frozenset(_LOADER_NAMES.split())
_VERSION = re.compile(r"[-.]?\d[\d.]*[a-z]?$")
# The dynamic linker, which runs the program that its first argument names; its own name has the architecture.
_LINKER = re.compile(r"ld-(linux|musl).*")


class UnsafeProgram(Exception):
    """A program could have been changed by somebody who may not; the message says by whom, for the operator."""


def loader(path: str) -> str | None:
    """The name under which a program is known to run other programs, if it is: its own, or that of what it links to."""
    for name in (os.path.basename(path), os.path.basename(os.path.realpath(path))):
        if name in _LOADERS or _VERSION.sub("", name) in _LOADERS or _LINKER.fullmatch(name):
            return name
    return None


@dataclass(frozen=True, slots=True)
class Program:
    """A program's path, and who may own it and the directories that it is found through."""

    path: str
    owners: frozenset[int]  # uids, besides root
    user: int | None = None  # who runs it; None: the runner's user

    def check(self) -> None:
        """UnsafeProgram when somebody else could have put another program in its place."""
        try:
            for path, status in _resolve(self.path):
                self._check(path, status)
        except OSError as error:
            raise UnsafeProgram(f"{self.path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            raise UnsafeProgram(f"{path} is no executable file")

    def _check(self, path: str, status: os.stat_result) -> None:
        if status.st_uid != 0 and status.st_uid not in self.owners:
            raise UnsafeProgram(f"{path} belongs to uid {status.st_uid}, who is neither root nor in trusted_owners")
        if status.st_uid != 0 and status.st_uid == self.user:
            raise UnsafeProgram(f"{path} belongs to uid {status.st_uid}, as whom it runs: it could change itself")
        if stat.S_ISLNK(status.st_mode):
            return  # its mode says nothing
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
        if status.st_mode & _WRITABLE and not sticky:
            raise UnsafeProgram(f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})")


def _resolve(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """All that a lookup of the path passes through: each directory, each symbolic link, and last the file. OSError."""
    current, pending, links = "/", path.strip("/").split("/"), 0
    yield current, os.lstat(current)
    while pending:
        name = pending.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)
            continue
        found = os.path.join(current, name)
        status = os.lstat(found)
        yield found, status
        if not stat.S_ISLNK(status.st_mode):
            current = found
            continue
        links += 1
        if links > _MAX_LINKS:
            raise UnsafeProgram(f"{path} has too many symbolic links")
        target = os.readlink(found)
        current = "/" if target.startswith("/") else current
        pending = target.split("/") + pending
