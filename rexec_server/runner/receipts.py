"""The starts that a runner has received: by them it can say for certain that a command was never executed."""

from __future__ import annotations

import os
from collections.abc import Iterable

# A name takes about a hundred bytes here.
MOST = 10_000


class Receipts:
    """Names of executions whose start was received or refused, under the random name of this runner's instance.

    A reservation names the instance that its start is meant for. Only that instance can know that the start never
    came. When there are too many names it takes another instance's name, and says nothing about what came before.
    """

    def __init__(self, instance: str = "", names: Iterable[str] = ()) -> None:
        self.instance = instance or _random()
        self._names = set(names)

    @property
    def names(self) -> list[str]:
        return sorted(self._names)

    def note(self, name: str) -> bool:
        """Notes a start that came, or one that is refused from now on. Returns False when it was noted before."""
        if name in self._names:
            return False
        if len(self._names) >= MOST:
            self.instance = _random()
            self._names.clear()
        self._names.add(name)
        return True

    def withdraw(self, name: str) -> None:
        """Forgets a start of which certainly nothing was done, so that it can be asked for again."""
        self._names.discard(name)

    def never_came(self, name: str, instance: str) -> bool:
        """Return True when a start that was meant for `instance` certainly never came."""
        return instance == self.instance and name not in self._names


def _random() -> str:
    return os.urandom(16).hex()
