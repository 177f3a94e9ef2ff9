"""Wakes whoever waits for an execution: inotify on its files, and a look each second in any case."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable

_log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)

_IN_MODIFY = 0x02
_IN_MOVED_TO = 0x80
_IN_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")

# inotify may be exhausted (fs.inotify.max_user_watches), and may lose events when its queue is full.
CHECK_SECONDS = 1.0
# Without inotify this is how late a follower may be.
CHECK_SECONDS_BLIND = 0.05


class Waker:
    """Calls back, in the event loop, when a file was written or a directory got a renamed file.

    A callback may come without a reason, and must look for itself.
    """

    def __init__(self) -> None:
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._unwatched: dict[int, Callable[[], None]] = {}  # those for which there was no inotify watch
        self._next_blind = -1
        self._check: asyncio.TimerHandle | None = None

    @property
    def has_inotify(self) -> bool:
        return bool(self._inotify >= 0)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.has_inotify:
            loop.add_reader(self._inotify, self._read)
        self._schedule_check(loop)

    def stop(self) -> None:
        if self._check:
            self._check.cancel()
        if self.has_inotify:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)

    def on_write(self, path: str, callback: Callable[[], None]) -> int:
        """Calls back after each write to a file. Returns a handle for `forget`."""
        return self._watch(path, _IN_MODIFY, callback)

    def on_rename_into(self, directory: str, callback: Callable[[], None]) -> int:
        """Calls back after a file was renamed into a directory. Returns a handle for `forget`."""
        return self._watch(directory, _IN_MOVED_TO, callback)

    def forget(self, handle: int) -> None:
        if self._callbacks.pop(handle, None) is not None:
            _libc.inotify_rm_watch(self._inotify, handle)
        self._unwatched.pop(handle, None)

    def _watch(self, path: str, mask: int, callback: Callable[[], None]) -> int:
        handle = _libc.inotify_add_watch(self._inotify, os.fsencode(path), mask) if self.has_inotify else -1
        if handle >= 0:
            self._callbacks[handle] = callback
        else:
            handle = self._next_blind
            self._next_blind -= 1
            self._unwatched[handle] = callback
        return int(handle)

    def _read(self) -> None:
        try:
            data = os.read(self._inotify, 64 * 1024)
        except BlockingIOError:
            return
        woken: dict[int, None] = {}
        position = 0
        while position < len(data):
            handle, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if not mask & _IN_IGNORED:
                woken[handle] = None
        for handle in woken:
            if handle < 0:  # the queue was full: any of them may have been meant
                return self._wake_all()
            callback = self._callbacks.get(handle)
            if callback:
                _look(callback)

    def _wake_all(self) -> None:
        for callback in [*self._callbacks.values(), *self._unwatched.values()]:
            _look(callback)

    def _schedule_check(self, loop: asyncio.AbstractEventLoop) -> None:
        def check() -> None:
            self._wake_all()
            self._schedule_check(loop)

        self._check = loop.call_later(CHECK_SECONDS_BLIND if self._unwatched else CHECK_SECONDS, check)


def _look(callback: Callable[[], None]) -> None:
    try:
        callback()
    except OSError:
        pass  # no descriptor to look with, say: the next check looks again, and the others are not to miss theirs
    except Exception:
        _log.exception("a look at an execution failed")  # the others are looked at all the same
