"""Which execution is a group's newest: as the index says, whatever is remembered of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_server.core.execution import Key, Request
from rexec_server.core.index import Index
from rexec_server.core.journal import NoJournal
from rexec_server.core.newest import Newest
from rexec_server.core.origin import Origin
from rexec_server.core.record import Record
from rexec_server.core.reservation import Ceilings, Reservation
from rexec_server.core.spool import ExitRecord, Reason


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(str(tmp_path / "index.sqlite"), NoJournal())
    yield opened
    opened.close()


def add(index: Index, exec_id: str, group: str = "g", caller: str = "alice") -> Record:
    """One that has ended, so that the next may begin."""
    request = Request(("true",), exclusive_group=group)
    reservation = Reservation(Key(caller, exec_id), True, f"{caller}-{exec_id}", b"", request, Origin("dev"), now=1)
    record = asyncio.run(index.reserve(reservation, Ceilings(all=100))).record
    end = ExitRecord(Reason.EXITED, 2, 0, 0, output_complete=True, exit_code=0)
    index.note_ended(record.name, end, record.execution.extent, 1, 1, 10**18)
    return record


def find(newest: Newest, group: str = "g", caller: str = "alice") -> str | None:
    key = asyncio.run(newest.find(caller, group))
    assert key is None or key.caller == caller
    return key.exec_id if key else None


def test_the_index_is_asked_for_what_is_not_remembered(index: Index) -> None:
    """A server that was restarted remembers nothing, and answers the same; each caller and group has its own."""
    add(index, "old")
    add(index, "new")
    add(index, "other", group="h")
    add(index, "theirs", caller="bob")
    newest = Newest(index)
    assert [find(newest), find(newest, "h"), find(newest, caller="bob")] == ["new", "other", "theirs"]
    assert find(newest, "i") is None


def test_the_later_wins(index: Index) -> None:
    """In whichever order two are noted, as an answer of the index may come late."""
    newest = Newest(index)
    old, new = add(index, "old"), add(index, "new")
    newest.note(new)
    newest.note(old)
    assert find(newest) == "new"


def test_after_a_deletion_it_is_the_one_before(index: Index) -> None:
    """And that of another than the newest changes nothing."""
    newest = Newest(index)
    oldest, old, new = (add(index, exec_id) for exec_id in ("oldest", "old", "new"))
    for record, expected in ((oldest, "new"), (new, "old"), (old, None)):
        find(newest)
        assert asyncio.run(index.delete(record.name, 3))
        newest.forget(record.execution)
        assert find(newest) == expected


def test_it_does_not_grow(index: Index) -> None:
    """So many groups are remembered; what was asked for last stays longest, and the others are found all the same."""
    newest = Newest(index, remembered=2)
    for group in ("a", "b"):
        newest.note(add(index, group, group))
    assert find(newest, "a") == "a"
    newest.note(add(index, "c", "c"))
    assert len(newest) == 2
    assert [find(newest, group) for group in ("a", "b", "c")] == ["a", "b", "c"]
    assert len(newest) == 2
    newest.note(add(index, "alone", group=""))
    assert len(newest) == 2
