"""What may be run: seen from the service, one question."""

from __future__ import annotations

from typing import Protocol

from rexec_server.core.command import Command
from rexec_server.core.grant import UNRESTRICTED, Grant
from rexec_server.policy.caller import Caller


class Admission(Protocol):
    """Decides what of a request is run, and how. The allowlist in production; everything in --dev.

    looks_at_files: so it may take as long as their file systems do; it may be asked in several threads.
    """

    @property
    def looks_at_files(self) -> bool: ...

    def admit(self, caller: Caller, command: Command) -> Grant:
        """How the command is run. NotAllowed, InvalidRequest (beyond a rule's bounds), Exhausted (its rate)."""


class AdmitAll:
    """`--dev`: whoever is let in may run anything."""

    looks_at_files = False

    def admit(self, caller: Caller, command: Command) -> Grant:
        return UNRESTRICTED
