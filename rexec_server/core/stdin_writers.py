"""Writers of one standard input, by name: how far each has got, in the file `stdin` behind its head.

Little-endian: turn and number of the forgotten; 16 slots of writer (SHA-256 of the name), bytes written, turn of the
last write (0: free); then, as a ring, the first 8 bytes of each writer that lost its slot. A shim of an earlier version
has the head alone.

The runner's side maps the file. Each field is stored at once, and in an order in which a kill between two stores does
no harm: at worst a writer is forgotten that was to be forgotten.
"""

from __future__ import annotations

import hashlib
import mmap
import struct

from rexec_server.core.spool import STDIN_FORMAT

MAX_WRITERS = 16
MAX_NAME = 64
STDIN_BYTES = 4096

_NUMBER = struct.Struct("<Q")
_SLOT = struct.Struct("<32sQQ")
_TURN = STDIN_FORMAT.size
_FORGOTTEN = _TURN + 8
_SLOTS = _FORGOTTEN + 8
_WRITTEN, _LAST = 32, 40  # in a slot
_MARKS = _SLOTS + MAX_WRITERS * _SLOT.size
_MARK_BYTES = 8
_MOST_MARKS = (STDIN_BYTES - _MARKS) // _MARK_BYTES


def writer_key(name: str) -> bytes:
    """Return the form in which supervisors know a writer; empty for the counter that all without a name share."""
    return hashlib.sha256(name.encode()).digest() if name else b""


class Writers:
    """The table, over the bytes of the file or over their mapping; only a mapping can be changed."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data

    def written(self, writer: bytes, offset: int) -> int | None:
        """Return how much this writer has written, who would go on at `offset` now. None: it is forgotten."""
        place = self._find(writer)
        if place is not None:
            return self._number(place + _WRITTEN)
        forgotten = self._number(_FORGOTTEN)
        if writer[:_MARK_BYTES] in self._marks(forgotten):
            return None
        # Not even the ring has all of them: then one that has begun before is one of those, and no new one.
        return None if offset and forgotten > _MOST_MARKS else 0

    def admit(self, writer: bytes) -> None:
        """Gives a writer a slot, unless it has one: a free one, or that of the one who wrote longest ago."""
        if self._find(writer) is not None:
            return
        last, place = min((self._number(place + _LAST), place) for place in self._places())
        if last:
            self._forget(place)
        self._store(place, writer)
        self._store_number(place + _WRITTEN, 0)
        self._touch(place)

    def note(self, writer: bytes, written: int) -> None:
        """Note that this writer, who has a slot, has written so much in all."""
        place = self._find(writer)
        assert place is not None
        self._store_number(place + _WRITTEN, written)
        self._touch(place)

    def _touch(self, place: int) -> None:
        turn = self._number(_TURN) + 1
        self._store_number(_TURN, turn)
        self._store_number(place + _LAST, turn)

    def _forget(self, place: int) -> None:
        """Forget one, and set the mark first: a writer that is in a slot and in the ring is known all the same."""
        forgotten = self._number(_FORGOTTEN)
        mark = bytes(self._data[place : place + _MARK_BYTES])
        self._store(_MARKS + forgotten % _MOST_MARKS * _MARK_BYTES, mark)
        self._store_number(_FORGOTTEN, forgotten + 1)
        self._store_number(place + _LAST, 0)

    def _marks(self, forgotten: int) -> set[bytes]:
        end = _MARKS + min(forgotten, _MOST_MARKS) * _MARK_BYTES
        return {bytes(self._data[at : at + _MARK_BYTES]) for at in range(_MARKS, end, _MARK_BYTES)}

    def _find(self, writer: bytes) -> int | None:
        for place in self._places():
            key, _, last = _SLOT.unpack_from(self._data, place)
            if last and key == writer:
                return place
        return None

    @staticmethod
    def _places() -> range:
        return range(_SLOTS, _MARKS, _SLOT.size)

    def _number(self, place: int) -> int:
        return int(_NUMBER.unpack_from(self._data, place)[0])

    def _store_number(self, place: int, number: int) -> None:
        self._store(place, _NUMBER.pack(number))

    def _store(self, place: int, data: bytes) -> None:
        assert isinstance(self._data, mmap.mmap)
        self._data[place : place + len(data)] = data


def written_by(data: bytes, writer: bytes) -> int:
    """Return, from the bytes of the file, how much this writer has written; 0 when that is not remembered."""
    if not writer:
        return int(STDIN_FORMAT.unpack_from(data)[0]) if len(data) >= STDIN_FORMAT.size else 0
    return (Writers(data).written(writer, 0) or 0) if len(data) >= STDIN_BYTES else 0
