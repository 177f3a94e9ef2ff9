"""Wakes whoever waits for an execution: inotify on its files, and a look each second in any case."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
import struct
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)

_IN_MODIFY = 0x02
_IN_MOVED_TO = 0x80
_IN_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")

# inotify may be exhausted (fs.inotify.max_user_watches), and may lose events when its queue is full.
CHECK_SECONDS = 1.0
# There may be ten thousand to look at: some at each tick, for no longer than a slice, so that others are served.
TICK_SECONDS = 0.05
_SLICE_SECONDS = 0.005
_AT_LEAST = 50
# Events that are read at once: some hundred, each of which may be an execution's end.
_EVENT_BYTES = 8 * 1024
# Without inotify a follower is a tick late, or more if there are thousands.


class Waker:
    """Calls back, in the event loop, when a file was written or a directory got a renamed file.

    A callback may come without a reason, and must look for itself.
    """

    def __init__(self) -> None:
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._unwatched: dict[int, Callable[[], None]] = {}  # those for which there was no inotify watch
        self._next_blind = -1
        self._round: list[int] = []  # of the handles those that are yet to be looked at in this second
        self._blind_round: list[int] = []
        self._next_round = 0.0
        self._share = _AT_LEAST
        self._check: asyncio.TimerHandle | None = None

    @property
    def has_inotify(self) -> bool:
        return bool(self._inotify >= 0)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.has_inotify:
            loop.add_reader(self._inotify, self._read)
        self._tick()

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
            data = os.read(self._inotify, _EVENT_BYTES)
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
                return self._look_at_all_soon()
            callback = self._callbacks.get(handle)
            if callback:
                _look(callback)

    def _look_at_all_soon(self) -> None:
        self._round = list(self._callbacks)
        self._share = len(self._round)
        if self._check:
            self._check.cancel()
        self._tick()

    def _tick(self) -> None:
        """Looks at the next ones: at each of them once in a second, at those without a watch as often as it can."""
        now = time.monotonic()
        if not self._round and now >= self._next_round:
            self._round = list(self._callbacks)
            self._share = max(_AT_LEAST, math.ceil(len(self._round) * TICK_SECONDS / CHECK_SECONDS))
            self._next_round = now + CHECK_SECONDS
        if not self._blind_round:
            self._blind_round = list(self._unwatched)
        _look_at_some(self._round, self._share, self._callbacks)
        _look_at_some(self._blind_round, len(self._blind_round), self._unwatched)
        busy = self._round or self._unwatched
        wait = TICK_SECONDS if busy else max(TICK_SECONDS, self._next_round - time.monotonic())
        self._check = asyncio.get_running_loop().call_later(wait, self._tick)


def _look_at_some(handles: list[int], most: int, callbacks: dict[int, Callable[[], None]]) -> None:
    """Takes handles from the list, and calls back those that are not forgotten, for a slice of time."""
    until = time.monotonic() + _SLICE_SECONDS
    for _ in range(min(most, len(handles))):
        callback = callbacks.get(handles.pop())
        if callback:
            _look(callback)
        if time.monotonic() >= until:
            break


def _look(callback: Callable[[], None]) -> None:
    try:
        callback()
    except OSError:
        pass  # no descriptor to look with, say: the next check looks again, and the others are not to miss theirs
    except Exception:
        _log.exception("a look at an execution failed")  # the others are looked at all the same
