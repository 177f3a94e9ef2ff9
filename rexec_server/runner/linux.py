"""The few system calls that Python's standard library does not have, and reading /proc."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from typing import NamedTuple

from rexec_server.core.spool import Usage
from rexec_server.process import prctl

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter's lock over a call: a child that is forked in it goes on as if nothing had happened.
_libc_locked = ctypes.PyDLL(None, use_errno=True)

# linux/sched.h: CLONE_INTO_CGROUP; eleven numbers, of which flags, exit_signal and cgroup are the 1st, 5th and 11th.
_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x200000000
_CLONE_ARGS = struct.Struct("=11Q")

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NAME = 15
_WNOWAIT = 0x01000000
_SYS_WAITID = {"x86_64": 247, "aarch64": 95, "riscv64": 95}.get(os.uname().machine)

_SYS_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134}.get(os.uname().machine)
_INTERNAL_SIGNALS = (32, 33)
# A wait tells of stops too, also unasked: those of a child that is traced by us (PTRACE_TRACEME) come as CLD_TRAPPED.
DEATHS = frozenset({os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED})
_SI_CODE = 8  # its offset in siginfo_t
# Made once, here: to make a type of ctypes costs a new process more than the call.
_Name, _SigInfo, _Rusage = ctypes.c_char * 16, ctypes.c_byte * 128, ctypes.c_long * 18

# linux/pidfd.h: PIDFD_GET_INFO tells any holder of a pidfd the status of a process that was reaped (Linux 6.15).
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("<QQ11Ii")


class Status(NamedTuple):
    """A wait status that was really seen: one of the two is set."""

    exit_code: int | None
    signal: int | None

    @classmethod
    def from_wait(cls, status: int) -> Status:
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None) if code >= 0 else cls(None, -code)


def become_subreaper() -> None:
    """Makes orphaned descendants the children of this process instead of init's (prctl(2))."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reset_internal_signals() -> None:
    """Sets those two signals to their default that the C library lets nobody touch.

    A process that was started by posix_spawn (make does) has them ignored, and its children inherit that.
    """
    if _SYS_RT_SIGACTION is None:
        return
    default = (ctypes.c_byte * 32)()  # struct sigaction of the kernel: SIG_DFL, no flags, an empty mask of 8 bytes
    for number in _INTERNAL_SIGNALS:
        _libc.syscall(_SYS_RT_SIGACTION, number, default, None, 8)


def fork_into(cgroup: int) -> int:
    """fork(2) of a process that is born in a cgroup, given by its open directory. OSError where that cannot be done.

    Moving a process there instead, once it is alive, waits for each processor of the machine: about 10 ms.
    Python is not told that it was forked: only for a child of a single thread that is soon to exec.
    """
    arguments = _CLONE_ARGS.pack(_CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    pid: int = _libc_locked.syscall(_SYS_CLONE3, arguments, _CLONE_ARGS.size)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def set_process_name(name: str) -> None:
    """What ps and top show; the kernel keeps 15 bytes."""
    buffer = _Name()
    buffer.value = name.encode()[:15]
    prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def peek_status(pidfd: int) -> Status | None:
    """The wait status of a child that ended, which stays unreaped; None while it runs. ChildProcessError: not ours."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if result is None or result.si_code not in DEATHS:
        return None
    if result.si_code == os.CLD_EXITED:
        return Status(result.si_status, None)
    return Status(None, result.si_status)


def peek_usage(pidfd: int) -> Usage | None:
    """What an ended, unreaped child and its waited-for children used; None where the system call is unknown."""
    if _SYS_WAITID is None:
        return None
    siginfo, rusage = _SigInfo(), _Rusage()
    options = os.WEXITED | os.WNOHANG | _WNOWAIT
    if _libc.syscall(_SYS_WAITID, int(os.P_PIDFD), pidfd, siginfo, options, rusage) != 0:
        return None
    if int.from_bytes(bytes(siginfo)[_SI_CODE : _SI_CODE + 4], sys.byteorder) not in DEATHS:
        return None
    return Usage(rusage[0] + rusage[1] / 1e6, rusage[2] + rusage[3] / 1e6, rusage[4] * 1024)


def next_child_to_see() -> int | None:
    """Return a child that is over but not reaped, or that is traced by us and stopped; None when there is none."""
    try:
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    return result.si_pid if result else None


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays unreaped."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return False
    return result is not None and result.si_code in DEATHS


def reap(pid: int) -> bool:
    """Reaps a child if it has ended; whether it had. False for one that is not ours: its parent reaps it."""
    if not has_ended(pid):
        return False
    os.waitpid(pid, 0)
    return True


def is_over(pidfd: int) -> bool:
    """Tell if a process has ended with all its threads, also one whose end its parent cannot see (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def foreign_status(pid: int, pidfd: int) -> Status | None:
    """The wait status of an ended process that is not our child, where the kernel tells it; else None."""
    # As a zombie it tells in one place, once it is reaped in the other; it may be reaped between two looks.
    return _reaped_status(pidfd) or _zombie_status(pid) or _reaped_status(pidfd)


def _reaped_status(pidfd: int) -> Status | None:
    info = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, *[0] * 13)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
        fields = _PIDFD_INFO.unpack(info)
        if fields[0] & _PIDFD_INFO_EXIT:
            return Status.from_wait(fields[-1])
    except OSError:
        pass  # an older kernel, or not reaped yet
    return None


def _zombie_status(pid: int) -> Status | None:
    """While it is a zombie, its exit code is the last field of /proc/PID/stat (proc(5), field 52)."""
    fields = stat_fields(pid)
    if not fields or fields[0] != "Z" or len(fields) < 50 or not _may_trace(pid):
        return None
    return Status.from_wait(int(fields[49]))


def _may_trace(pid: int) -> bool:
    """Whether the kernel tells us of a process what it keeps from strangers: to them any exit code is 0 (proc(5))."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return False
    except OSError:
        pass  # a zombie has none, and says so only to those who may
    return True


def read_small(path: str) -> bytes:
    """The whole of a small file of the kernel's. open() would read it with six times the calls, in each new process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while piece := os.read(fd, 16 * 1024):
            data += piece
        return data
    finally:
        os.close(fd)


def stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from field 3 (state) on, or None when there is no such process."""
    try:
        data = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return data[data.rindex(b")") + 2 :].decode().split()


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the boot id, what tells it from a later namesake."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def pending_bytes(fifo: int) -> int:
    """Bytes that were written to a FIFO and not read yet."""
    count = bytearray(4)
    fcntl.ioctl(fifo, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


def open_pidfd(pid: int, start: int) -> int | None:
    """A pidfd of exactly that process, or None when it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise
    if start_ticks(pid) == start:
        return pidfd
    os.close(pidfd)
    return None


def now_ns() -> int:
    return time.time_ns()
