"""Which execution is the newest of each exclusive group, so that who polls a group need not ask the index each time."""

from __future__ import annotations

from collections import OrderedDict

from rexec_server.core.execution import Execution, Key
from rexec_server.core.index import Index, Query
from rexec_server.core.record import Record

REMEMBERED = 4096


class Newest:
    """The newest of each (caller, group), as far as it is remembered; of the others the index knows."""

    def __init__(self, index: Index, remembered: int = REMEMBERED) -> None:
        self._index = index
        self._remembered = remembered
        self._known: OrderedDict[tuple[str, str], tuple[int, Key]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, caller: str, group: str) -> Key | None:
        """None when there is none."""
        place = caller, group
        if place not in self._known:
            for record in await self._index.page(Query(caller, page_size=1, exclusive_group=group)):
                self.note(record)
        if place not in self._known:
            return None
        self._known.move_to_end(place)
        return self._known[place][1]

    def note(self, record: Record) -> None:
        """There is this one. Of two it is the later, in whichever order they are noted."""
        execution = record.execution
        if not execution.request.exclusive_group:
            return
        place, found = _place(execution), (record.seq, execution.key)
        self._known[place] = max(self._known.pop(place, found), found)
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)

    def drop(self, caller: str, group: str) -> None:
        """What is remembered is no longer there: the index is asked again."""
        self._known.pop((caller, group), None)

    def forget(self, execution: Execution) -> None:
        """It was deleted; if it was the newest, the one before it is that now."""
        _, key = self._known.get(_place(execution), (0, None))
        if key == execution.key:
            del self._known[_place(execution)]


def _place(execution: Execution) -> tuple[str, str]:
    return execution.key.caller, execution.request.exclusive_group
