"""The command's two output channels: pumped into the log until they end, or discarded."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from functools import partial

from rexec_server.core.spool import Channel, Waiting
from rexec_server.runner.linux import pending_bytes
from rexec_server.runner.lock import note_floor, ring
from rexec_server.runner.log_writer import MOVE_BYTES, LogFull, LogWriter, OutputLimitReached
from rexec_server.runner.loop import READ, Loop, Timer

DISK_FULL_RETRY_SECONDS = 0.1


class Output:
    """Moves bytes from the FIFOs to the log as they come, and rings for followers after each batch.

    A full disk is nothing that a command should see: its bytes wait in the FIFO, and with them the command. So they do
    where output is held for its readers, and the log is full.
    """

    def __init__(
        self, loop: Loop, log: LogWriter, fifos: dict[Channel, int], bell: int, on_limit: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._log = log
        self._fifos = fifos
        self._bell = bell
        self._on_limit = on_limit
        self._retry: Timer | None = None
        self._owed: dict[Channel, int] | None = None
        self._told = Waiting.NOTHING
        self.log_full = False
        self.on_wait: Callable[[], None] = lambda: None  # log_full has changed
        self.on_progress: Callable[[], None] = lambda: None
        self.limit_reached = False
        self._ended: set[Channel] = set()
        self._watch_all()

    @property
    def disk_full(self) -> bool:
        return self._retry is not None

    def owe(self) -> None:
        """Notes what is in the FIFOs now: all that the ended command wrote, whatever others add to it later."""
        self._owed = {channel: pending_bytes(fifo) for channel, fifo in self._fifos.items()}
        if self.log_full:
            self._go_on()

    def hold(self, floor: int) -> None:
        """Drop nothing from this offset on any more; what is before it may be dropped."""
        self._log.floor = floor
        note_floor(self._bell, floor)
        if self.log_full and not self._log.full:
            self._go_on()

    @property
    def settled(self) -> bool:
        """Whether all that was owed has been stored, or never will be (the limit was reached)."""
        return self.limit_reached or not any((self._owed or {}).values())

    @property
    def at_end(self) -> bool:
        """Whether nobody holds a channel any more, and all of it has been stored."""
        return all(channel in self._ended for channel in self._fifos)

    @property
    def held(self) -> bool:
        """Whether some process still holds a channel open."""
        return not all(hung_up(fifo) for fifo in self._fifos.values())

    def drain_now(self) -> None:
        """Stores what is in the FIFOs now, as far as the disk and the limit allow."""
        self._take_retry()
        for channel in self._fifos:
            left = pending_bytes(self._fifos[channel])
            while left > 0 and not self.disk_full and not self.limit_reached:
                left -= self._take(channel, must=True) or left

    def unstored(self, everything: bool) -> dict[Channel, int]:
        """Bytes that will not be stored: all that is in the FIFOs, or only what was owed."""
        if everything:
            return {channel: pending_bytes(fifo) for channel, fifo in self._fifos.items()}
        return dict(self._owed or {})

    def close(self) -> None:
        self._take_retry()
        for fifo in self._fifos.values():
            self._loop.unwatch(fifo)
            os.close(fifo)
        self._fifos = {}
        self._log.close()

    def discard(self, on_end: Callable[[], None]) -> None:
        """From now on throws away what kept leftovers write, so that they never block; calls back when all are gone."""
        self._take_retry()
        self._log.close()
        Discard(self._loop, self._fifos, on_end)
        self._fifos = {}

    def _watch_all(self) -> None:
        for channel, fifo in self._fifos.items():
            if channel not in self._ended:
                self._loop.watch(fifo, READ, partial(self._ready, channel))

    def _ready(self, channel: Channel, events: int) -> None:
        moved = self._take(channel)
        stuck = self.disk_full or self.limit_reached or self.log_full
        if moved == 0 and events & select.EPOLLHUP and not stuck:
            self._ended.add(channel)
            self._loop.unwatch(self._fifos[channel])
        self.on_progress()

    def _take(self, channel: Channel, must: bool = False) -> int:
        try:
            moved = self._log.take(self._fifos[channel], channel, must or bool(self._owed and self._owed[channel]))
        except OutputLimitReached:
            self._reach_limit()
            return 0
        except LogFull:
            self._wait_for_reader()
            return 0
        except OSError:  # no space, no quota, an I/O error: the disk's trouble, and perhaps over soon
            self._wait_for_space()
            return 0
        if moved:
            if self._owed:
                self._owed[channel] = max(0, self._owed[channel] - moved)
            self._told = Waiting.NOTHING
            ring(self._bell)
        return moved

    def _reach_limit(self) -> None:
        """What comes beyond stays in the FIFOs: the command waits there until it is ended."""
        self.limit_reached = True
        for fifo in self._fifos.values():
            self._loop.unwatch(fifo)
        self._on_limit()

    def _wait_for_reader(self) -> None:
        for fifo in self._fifos.values():
            self._loop.unwatch(fifo)
        self.log_full = True
        self._tell(Waiting.READER)
        self.on_wait()

    def _go_on(self) -> None:
        self.log_full = False
        self._watch_all()
        self._tell(Waiting.NOTHING)
        self.on_wait()

    def _tell(self, waiting: Waiting) -> None:
        """Tell it once, not at each try."""
        if waiting != self._told:
            self._told = waiting
            ring(self._bell, waiting)

    def _wait_for_space(self) -> None:
        for fifo in self._fifos.values():
            self._loop.unwatch(fifo)
        self._tell(Waiting.DISK if self._owed is None else Waiting.DISK_AT_END)
        self._take_retry()
        self._retry = self._loop.call_later(DISK_FULL_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._watch_all()
        self.on_progress()

    def _take_retry(self) -> None:
        if self._retry:
            self._retry.cancel()
            self._retry = None


class Discard:
    """Reads FIFOs to /dev/null until nobody writes them any more.

    fifos: what is closed is taken out of it, as its number may soon be that of something else.
    """

    def __init__(self, loop: Loop, fifos: dict[Channel, int], on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._fifos = fifos
        self._on_end = on_end
        for channel, fifo in fifos.items():
            loop.watch(fifo, READ, partial(self._ready, channel))

    def _ready(self, channel: Channel, events: int) -> None:
        fifo = self._fifos[channel]
        if events & READ:
            try:
                os.splice(fifo, self._null, MOVE_BYTES, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                pass  # another reader was faster; there is none, but the kernel may say so
        elif events & select.EPOLLHUP:
            self._loop.unwatch(fifo)
            os.close(self._fifos.pop(channel))
            if not self._fifos:
                os.close(self._null)
                self._on_end()


def hung_up(fifo: int) -> bool:
    """Whether no process can write to it any more."""
    poll = select.poll()
    poll.register(fifo, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
