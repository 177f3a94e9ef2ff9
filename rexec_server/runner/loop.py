"""A small event loop: file descriptors, timers, and dead children.

Single-threaded and safe to throw away after a fork, which is why it is not asyncio: every process here forks.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable

from rexec_server.runner.names import Names
from rexec_server.runner.reserve import Reserve

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

# epoll_wait(2) takes milliseconds as an int: a timer in a month would overflow it.
LONGEST_WAIT_SECONDS = 86400.0


class Timer:
    """A callback to come; `cancel` makes it not come."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a child has ended."""

    def __init__(self, reserve: Reserve | None = None) -> None:
        self._reserve = reserve
        self.scarce = False  # the reserve is lent to what is called back now: it is for ends, not for beginnings
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopped = False
        self._signals: dict[int, Callable[[], None]] = {}
        self.names = Names(self)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Calls `callback(ready_events)` whenever fd is ready, also for hang-up; replaces an earlier watch of fd."""
        known = fd in self._callbacks
        self._callbacks[fd] = callback
        (self._epoll.modify if known else self._epoll.register)(fd, events)

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_child(self, callback: Callable[[], None]) -> None:
        """Calls back after SIGCHLD; several deaths may come as one call."""
        self.on_signal(signal.SIGCHLD, callback)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Calls back after a signal, which is let through from here on; several of the same may come as one call."""
        if not self._signals:
            self._wake_on_signals()
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def _wake_on_signals(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

        def wake(_: int) -> None:
            try:
                numbers = set(os.read(wake_read, 4096))
            except BlockingIOError:
                return
            for number in numbers & self._signals.keys():
                self._signals[number]()

        self.watch(wake_read, READ, wake)

    def run(self) -> None:
        """Runs until `stop`."""
        while not self._stopped:
            ready = self._epoll.poll(self._next_timeout())
            self.scarce = self._reserve is not None and self._reserve.lend()
            for fd, events in ready:
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            self._run_timers()

    def stop(self) -> None:
        self._stopped = True

    def _next_timeout(self) -> float | None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(LONGEST_WAIT_SECONDS, max(0.0, self._timers[0][0] - time.monotonic()))

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback()
