"""Descriptors that are kept back: what runs is to be seen to its end, also when none is left for anything more."""

from __future__ import annotations

import fcntl
import os

# More than supervision has open at a time, for a moment, beside what it keeps.
_DESCRIPTORS = 16


class Reserve:
    """Opened while there are many; lent, by closing them, when there is none.

    A limit that is lowered later counts by number, and these have low ones.
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self._take_back()

    def lend(self) -> bool:
        """Makes room until the next call if there is none. Whether it did."""
        self._take_back()
        if not self._held:
            return False
        try:
            os.close(fcntl.fcntl(self._held[0], fcntl.F_DUPFD_CLOEXEC, 0))
        except OSError:
            while self._held:
                os.close(self._held.pop())
            return True
        return False

    def _take_back(self) -> None:
        """As many as there are."""
        while len(self._held) < _DESCRIPTORS:
            try:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return
