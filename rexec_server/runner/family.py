"""The runner's children: shims that it forked, and what became its own when one of them died."""

from __future__ import annotations

import os
from collections.abc import Callable

from rexec_server.runner import linux
from rexec_server.runner.tracees import let_go
from rexec_server.runner.tree import children

# The execution of an orphan that may belong to more than one.
_UNKNOWN = ""


class Family:
    """Who is whose. All reaping of children is here, so a pid that is kept here cannot be another process."""

    def __init__(
        self,
        shims: dict[int, str],
        leaders: dict[int, str],
        orphans: dict[int, str],
        leader_of: Callable[[str], int | None],
    ) -> None:
        """leader_of: the leader that a dead shim has left to us, if its status is still to be recorded."""
        self.shims = shims
        self.leaders = leaders  # of dead shims; left unreaped until their end is recorded
        self.orphans = orphans
        self._leader_of = leader_of
        self._dead: list[str] = []  # executions whose shims were reaped, and nothing else of it is known yet
        self._bereft: list[str] = []  # executions whose shims are dead, which nobody was told of yet

    def orphans_of(self, execution: str) -> set[int]:
        """Processes that certainly belong to an execution, as only its death in the family can have left them."""
        return {pid for pid, owner in self.orphans.items() if owner == execution}

    def reap(self) -> list[str]:
        """Reaps all that have ended but leaders, and returns the executions whose shims are dead. OSError."""
        self.look()
        bereft, self._bereft = self._bereft, []
        return bereft

    def look(self) -> None:
        """Who has come and who has ended, as of now: an end may be seen before the signal that tells of it. OSError."""
        # Before any reaping: who is new now has lost a parent that is dead now, and so is seen below.
        found = set(children(os.getpid())) - self.shims.keys()
        let_go(found)
        self._dead += self._reap_shims()
        for name in self._dead:
            leader = self._leader_of(name)  # when it cannot say, all of them are asked for again
            if leader is not None:
                self.leaders[leader] = name
        found -= self.leaders.keys()
        newcomers = found - self.orphans.keys()
        bereaved = {*self._dead, *self._dead_leaders(), *self._reap_orphans(found)}
        owner = bereaved.pop() if len(bereaved) == 1 else _UNKNOWN
        self.orphans |= {pid: owner for pid in newcomers if not linux.reap(pid)}
        self._bereft += self._dead
        self._dead = []

    def release(self, execution: str) -> None:
        """The execution's end is recorded: its leader need not be kept."""
        for pid in [pid for pid, owner in self.leaders.items() if owner == execution]:
            del self.leaders[pid]
            linux.reap(pid)

    def _reap_shims(self) -> list[str]:
        dead = []
        while (pid := linux.next_child_to_see()) in self.shims and linux.reap(pid):
            dead.append(self.shims.pop(pid))
        if pid is not None:  # it hides those behind it
            dead += [self.shims.pop(pid) for pid in list(self.shims) if linux.reap(pid)]
        return dead

    def _dead_leaders(self) -> list[str]:
        return [name for pid, name in self.leaders.items() if linux.has_ended(pid)]

    def _reap_orphans(self, found: set[int]) -> list[str]:
        return [self.orphans.pop(pid) for pid in found & self.orphans.keys() if linux.reap(pid)]
