"""Letting go of processes that made their supervisor their tracer.

PTRACE_TRACEME makes a process's parent its tracer, and an orphan's parent is the supervisor of its command. Such a
process stops at each signal until its tracer continues it, and a thread of it that ended keeps all of it unreaped. We
trace nothing: it is detached at its first stop, and goes on as if it had never asked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress

from rexec_server.runner.linux import DEATHS

_PTRACE_DETACH = 17
_PTRACE_GETSIGINFO = 0x4202
_SI_USER = 0
_SIGINFO = struct.Struct("=iii4xi")  # si_signo, si_errno, si_code, si_pid
# linux/wait.h: with __WCLONE only those that are traced by us are waited for, threads too; Python's int is signed.
_WCLONE = -0x80000000
_PEEK = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | _WCLONE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def let_go(children: Iterable[int]) -> None:
    """Detaches those of our children, and of their threads, that are stopped with us as their tracer."""
    try:
        if os.waitid(os.P_ALL, 0, _PEEK) is None:
            return
    except ChildProcessError:
        return  # as nearly always: we trace none
    for pid in children:
        for tid in _threads(pid):
            with suppress(ChildProcessError, ProcessLookupError):  # not traced by us; or killed just now
                _let_thread_go(pid, tid)


def _let_thread_go(pid: int, tid: int) -> None:
    result = os.waitid(os.P_PID, tid, _PEEK)
    if result is None:
        return
    if result.si_code not in DEATHS:
        _detach(tid, _pending_signal(tid))
    elif tid != pid:
        os.waitid(os.P_PID, tid, os.WEXITED | os.WNOHANG | _WCLONE)  # the recorder of a process's end reaps it


def _pending_signal(tid: int) -> int:
    """Return the signal that it was about to get when it stopped; 0 when there is none."""
    info = ctypes.create_string_buffer(128)
    if _libc.ptrace(_PTRACE_GETSIGINFO, tid, None, ctypes.addressof(info)) != 0:
        return 0  # it is stopped by a signal that it has got already
    number, _, code, sender = _SIGINFO.unpack_from(info)
    after_exec = number == signal.SIGTRAP and code == _SI_USER and sender == tid
    return 0 if after_exec else int(number)  # the kernel sends this one to a traced process, and to no other


def _detach(tid: int, number: int) -> None:
    _libc.ptrace(_PTRACE_DETACH, tid, None, number)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
