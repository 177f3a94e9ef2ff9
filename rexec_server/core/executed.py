"""Telling apart a command that runs and one whose process has not come to its exec, which may hang."""

from __future__ import annotations

import os

# linux/sched.h: set by fork, cleared by exec. Fields of /proc/PID/stat from its third on: flags, starttime (proc(5)).
_PF_FORKNOEXEC = 0x40
_FLAGS, _START = 6, 19


def has_executed(pid: int, start: int) -> bool:
    """Return False for a process that is still what it was forked from; True also where nothing of it can be seen.

    start: when the process started, in clock ticks since boot; another one of that pid says nothing about it.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        data = os.read(fd, 4096)
    except OSError:
        return True
    finally:
        os.close(fd)
    fields = data[data.rindex(b")") + 2 :].split()
    return int(fields[_START]) != start or not int(fields[_FLAGS]) & _PF_FORKNOEXEC
