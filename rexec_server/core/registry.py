"""The executions that the server has in memory: all that are live, and some of the ended ones."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from rexec_server.core.engine import Engine
from rexec_server.core.entry import Entry
from rexec_server.core.errors import Unavailable
from rexec_server.core.execution import Key, State
from rexec_server.core.index import Index, now_ns
from rexec_server.core.journal import Journal
from rexec_server.core.observer import Observer
from rexec_server.core.record import Record
from rexec_server.core.slices import one_slice
from rexec_server.core.spool import LOCK, ExitRecord, Reason, StartError
from rexec_server.core.waker import Waker

RETRY_SECONDS = 0.2
_REMEMBERED_ENDED = 256


class Registry:
    """One Entry per execution, and the one place where an execution is seen to start and to end."""

    def __init__(
        self,
        index: Index,
        engine: Engine,
        waker: Waker,
        journal: Journal,
        observer: Observer,
        on_missing: Callable[[Entry], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Make a registry. on_missing: called at each look for an execution that has not ended and has no directory."""
        self._index = index
        self._on_missing = on_missing
        self._journal = journal
        self.observer = observer
        self._engine = engine
        self._waker = waker
        self._spawn = spawn  # begins a task that ends with the server
        self.live: dict[Key, Entry] = {}
        self._ended: OrderedDict[Key, Entry] = OrderedDict()

    def get(self, key: Key) -> Entry | None:
        return self.live.get(key) or self._ended.get(key)

    def remember(self, record: Record) -> Entry:
        """The entry of a record: the same one for all who ask, while it is live."""
        key = record.execution.key
        entry = self.get(key)
        if entry is None:
            entry = Entry(record, self._engine.directory(record.name))
            if entry.ended:
                entry.decided.set()
                self._remember_ended(entry)
            else:
                self.live[key] = entry
        return entry

    def forget(self, key: Key) -> None:
        self._ended.pop(key, None)

    def watch(self, entry: Entry) -> None:
        """From now on is told of the entry's output and end. Watching comes before looking, so nothing is missed."""
        entry.end_watch = self._waker.on_rename_into(entry.directory, lambda: self._look(entry))
        with suppress(OSError):  # no descriptor, or a damaged disk: the next check looks again
            self._look(entry)

    def watch_output(self, entry: Entry) -> None:
        """Wakes who waits at each batch of output; only while somebody does, as each batch costs a wake-up."""
        entry.watchers += 1
        if entry.watchers == 1 and not entry.ended:
            entry.output_watch = self._waker.on_write(f"{entry.directory}/{LOCK}", entry.wake_if_changed)

    def unwatch_output(self, entry: Entry) -> None:
        entry.watchers -= 1
        if entry.watchers == 0:
            entry.forget_readings()  # from now on nobody is told when they are old
            if entry.output_watch is not None:
                self._waker.forget(entry.output_watch)
                entry.output_watch = None

    def wake_all(self) -> None:
        for entry in self.live.values():
            entry.wake()

    def _look(self, entry: Entry) -> None:
        if entry.ended:
            return
        record = entry.read_exit()
        if record:
            self._settle_when_counted(entry, record)
        elif entry.note_start():
            execution = entry.execution
            self._index.note_started(entry.name, execution.pid, execution.start_time)
            self.observer.started(entry.name, execution)
            entry.wake()
        elif not os.path.isdir(entry.directory):
            self._on_missing(entry)

    async def settle_not_started(self, entry: Entry, error: StartError) -> None:
        """For a start that failed before there was a place to record it; the spool goes first if it says anything.

        So the index alone knows of this end: it is told to nobody before it is on disk there.
        """
        record = ExitRecord(Reason.START_FAILED, now_ns(), 0, 0, output_complete=True, start_error=error)
        while not entry.ended:
            try:
                expire_time = entry.expire_time(record)
                await self._index.record_ended(entry.name, record, entry.log.extent(record), 0, 0, expire_time)
            except Unavailable:  # a full disk, say
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not entry.ended:
                self._settle(entry, record)

    def _settle_when_counted(self, entry: Entry, record: ExitRecord) -> None:
        """Goes through its log first: that takes a while if it has millions of pieces."""
        if entry.counted_at_end:
            return
        if one_slice(entry.catch_up()):
            return self._settle(entry, record)
        entry.counted_at_end = True
        self._spawn(self._settle_later(entry, record))

    async def _settle_later(self, entry: Entry, record: ExitRecord) -> None:
        try:
            await entry.caught_up()
            if not entry.ended:
                self._settle(entry, record)
        except OSError:
            pass  # no descriptor to look with, say: the next check looks again
        finally:
            entry.counted_at_end = False

    def _settle(self, entry: Entry, record: ExitRecord) -> None:
        """The one transition to an end. The index hears of it before anybody else can act on it."""
        unseen = entry.execution.state == State.STARTING
        entry.settle(record)
        execution = entry.execution
        self._journal.finished(entry.name, execution)
        self._index.note_ended(
            entry.name, record, execution.extent, execution.pid, execution.start_time, execution.expire_time
        )
        if unseen and execution.start_time:  # so short that it was over when we looked
            self.observer.started(entry.name, execution)
        self.observer.ended(entry.name, execution)
        if entry.end_watch is not None:
            self._waker.forget(entry.end_watch)
            entry.end_watch = None
        del self.live[entry.key]
        self._remember_ended(entry)
        entry.wake()

    def _remember_ended(self, entry: Entry) -> None:
        self._ended[entry.key] = entry
        while len(self._ended) > _REMEMBERED_ENDED:
            self._ended.popitem(last=False)
