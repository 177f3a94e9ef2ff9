"""Who writes down what was done besides starting and ending: seen from the service, an audit."""

from __future__ import annotations

from typing import Protocol

from rexec_server.policy.caller import Caller


class Recorder(Protocol):
    """Told of what a caller did, or was not allowed to do."""

    def event(self, name: str, caller: Caller | None, **facts: object) -> None:
        """Writes it down; must not fail, nor take long."""


class NoRecorder:
    """Nothing is written down: a server in --dev."""

    def event(self, name: str, caller: Caller | None, **facts: object) -> None:
        pass
