"""Linux capabilities (capabilities(7)): giving up all of them, for this process and for whatever it executes."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from rexec_server.process import prctl

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_HEADER = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_SETS_BYTES = 2 * 3 * 4  # effective, permitted, inheritable; of the first 32 capabilities, then of the others

_libc = ctypes.CDLL(None, use_errno=True)


def empty_bounding_set() -> None:
    """No exec gives any capability back, not even to root. OSError (EPERM) without CAP_SETPCAP."""
    number = 0
    while (held := _is_bounding(number)) is not None:
        if held:
            prctl(_PR_CAPBSET_DROP, number)
        number += 1


def give_up() -> None:
    """Empties the other four sets, which lowers only, so that nobody needs a privilege for it. OSError."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", ctypes.create_string_buffer(bytes(_SETS_BYTES)))
    sets = ctypes.create_string_buffer(_SETS_BYTES)
    _call("capget", sets)
    if any(sets.raw[:_SETS_BYTES]):
        raise OSError(errno.EPERM, "some are still there")


def _is_bounding(number: int) -> bool | None:
    """Whether a capability is in the bounding set; None: this kernel has none of that number."""
    try:
        return prctl(_PR_CAPBSET_READ, number) == 1
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _call(name: str, sets: ctypes.Array[ctypes.c_char]) -> None:
    if getattr(_libc, name)(ctypes.create_string_buffer(_HEADER), sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
