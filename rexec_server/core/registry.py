"""The executions that the server has in memory: all that are live, and some of the ended ones."""

from __future__ import annotations

from collections import OrderedDict

from rexec_server.core.engine import Engine
from rexec_server.core.entry import Entry
from rexec_server.core.execution import Key
from rexec_server.core.index import Index, Record
from rexec_server.core.spool import LOCK, ExitRecord
from rexec_server.core.waker import Waker

_REMEMBERED_ENDED = 256


class Registry:
    """One Entry per execution, and the one place where an execution is seen to start and to end."""

    def __init__(self, index: Index, engine: Engine, waker: Waker) -> None:
        self._index = index
        self._engine = engine
        self._waker = waker
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
        entry.watches = [self._waker.on_rename_into(entry.directory, lambda: self._look(entry))]
        self._look(entry)

    def watch_output(self, entry: Entry) -> None:
        """Wakes followers at each batch of output; only while there are any, as each batch costs a wake-up."""
        if len(entry.watches) == 1:
            entry.watches.append(self._waker.on_write(f"{entry.directory}/{LOCK}", entry.wake))

    def unwatch_output(self, entry: Entry) -> None:
        if len(entry.watches) == 2:
            self._waker.forget(entry.watches.pop())

    def wake_all(self) -> None:
        for entry in self.live.values():
            entry.wake()

    def _look(self, entry: Entry) -> None:
        if entry.ended:
            return
        record = entry.read_exit()
        if record:
            self._settle(entry, record)
        elif entry.note_start():
            execution = entry.execution
            self._index.note_started(entry.name, execution.pid, execution.start_time)
            entry.wake()

    def _settle(self, entry: Entry, record: ExitRecord) -> None:
        """The one transition to an end. The index hears of it before anybody else can act on it."""
        entry.settle(record)
        execution = entry.execution
        self._index.note_ended(
            entry.name, record, execution.extent, execution.pid, execution.start_time, execution.expire_time
        )
        while entry.watches:
            self._waker.forget(entry.watches.pop())
        del self.live[entry.key]
        self._remember_ended(entry)
        entry.wake()

    def _remember_ended(self, entry: Entry) -> None:
        self._ended[entry.key] = entry
        while len(self._ended) > _REMEMBERED_ENDED:
            self._ended.popitem(last=False)
