"""Who hears of every execution, for the record: seen from core, an audit."""

from __future__ import annotations

from typing import Protocol

from rexec_server.core.execution import Execution
from rexec_server.core.origin import Origin


class Journal(Protocol):
    """Told before a command is started, and when it has ended. `name` is an execution's name in the spool."""

    def accepted(self, name: str, execution: Execution, origin: Origin) -> None:
        """A request is about to be run. Called in the index's thread; Unavailable refuses the request."""

    def sync(self) -> None:
        """Returns when all that was accepted is on disk. In the index's thread, before any of it is committed."""

    def finished(self, name: str, execution: Execution) -> None:
        """An execution has ended. Must not fail, nor take long: the end is what it is. May be told twice."""


class NoJournal:
    """Nothing is recorded: a server in --dev."""

    def accepted(self, name: str, execution: Execution, origin: Origin) -> None:
        pass

    def sync(self) -> None:
        pass

    def finished(self, name: str, execution: Execution) -> None:
        pass
