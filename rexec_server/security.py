"""Who is let in, what they may run, and what is written down of it: built from the configuration, and reloaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rexec_server.config import Config
from rexec_server.core.journal import Journal, NoJournal
from rexec_server.policy.admission import Admission, AdmitAll
from rexec_server.policy.caller import Authenticator, DevAuthenticator
from rexec_server.policy.limits import CallLimits
from rexec_server.policy.recorder import NoRecorder, Recorder


class Security(Protocol):
    """What the composition root needs to know of it."""

    @property
    def authenticator(self) -> Authenticator: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def recorder(self) -> Recorder: ...

    @property
    def limits(self) -> CallLimits: ...

    def check_host(self, features: Iterable[str]) -> None:
        """StartRefused when something was declared that this host cannot do."""

    def reload(self) -> None:
        """Reads again what may have changed. What cannot be read stays as it was, and that is said."""

    def close(self) -> None: ...


class DevSecurity:
    """`--dev`: everybody is let in and may run anything, and nothing is written down."""

    def __init__(self) -> None:
        self.authenticator = DevAuthenticator()
        self.admission = AdmitAll()
        self.journal = NoJournal()
        self.recorder = NoRecorder()
        self.limits = CallLimits(None)

    def check_host(self, features: Iterable[str]) -> None:
        pass

    def reload(self) -> None:
        pass

    def close(self) -> None:
        pass


def build(config: Config) -> Security:
    """StartRefused."""
    if config.dev:
        return DevSecurity()
    from rexec_server.production import ProductionSecurity  # imports what only it needs: a tenth of the start

    return ProductionSecurity(config)
