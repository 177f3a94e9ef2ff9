"""What a process tells the kernel about itself (prctl(2)); only the standard library, so every program may use it."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)
# As unsigned long each: some options want the unused ones to be 0 to their last bit.
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    """The call's own answer. OSError when the kernel refuses it."""
    answer: int = _libc.prctl(option, argument, second, 0, 0)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def become_undumpable() -> None:
    """Closes our memory, environment and descriptors in /proc, and tracing, to other processes of our user.

    What is forked inherits that; what is executed does not. No core is dumped either.
    """
    prctl(_PR_SET_DUMPABLE, 0)
