"""What a policy makes of a request: how it is really run."""

from __future__ import annotations

from dataclasses import dataclass

from rexec_server.core.launch import Confinement, Limits


@dataclass(frozen=True, slots=True)
class Grant:
    """A decision to let a request run. What is empty or None here leaves the request's own, or the server's default.

    A rule decides with the request in hand: what the request asks for is in here already, within the rule's bounds.
    """

    rule: str = ""  # its name; empty: no allowlist is in force
    arguments: tuple[str, ...] = ()  # built by the rule: these are run, never the request's
    environment: dict[str, str] | None = None  # complete: nothing is added to it
    working_directory: str = ""
    limits: Limits | None = None
    timeout: float | None = None  # seconds
    output_bytes: int = 0
    waiting_timeout: float | None = None  # seconds; infinity: for ever
    umask: int | None = None
    confinement: Confinement = Confinement()
    max_running: int | None = None  # executions of this rule at once


UNRESTRICTED = Grant()
"""Everything as it was asked for: a server in --dev."""
