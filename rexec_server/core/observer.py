"""Who looks on while executions start and end: seen from core, a log, metrics, traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rexec_server.core.execution import Execution
from rexec_server.core.spool import StartError

_log = logging.getLogger(__name__)


class Observer:
    """Told, in the event loop, of what happens. Nothing depends on it: it must not take long.

    `name` is an execution's name in the spool.
    """

    def trace(self) -> str:
        """The trace that the call being served belongs to (a W3C traceparent), or nothing.

        It is kept with what the call starts: who sees the end may be another server.
        """
        return ""

    def spawned(self, name: str, execution: Execution, began: int, error: StartError | None) -> None:
        """The engine has answered a request that was made at `began` (ns since 1970)."""

    def started(self, name: str, execution: Execution) -> None:
        """It runs."""

    def ended(self, name: str, execution: Execution) -> None:
        """It has ended, perhaps while no server looked. A server that dies just now leaves it to the next one."""


class Observers(Observer):
    """Several of them. One that fails is logged, and harms neither the others nor the execution."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def trace(self) -> str:
        return next(filter(None, (observer.trace() for observer in self._observers)), "")

    def spawned(self, name: str, execution: Execution, began: int, error: StartError | None) -> None:
        self._tell(lambda observer: observer.spawned(name, execution, began, error))

    def started(self, name: str, execution: Execution) -> None:
        self._tell(lambda observer: observer.started(name, execution))

    def ended(self, name: str, execution: Execution) -> None:
        self._tell(lambda observer: observer.ended(name, execution))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception:
                _log.exception("an observer of executions failed")
