"""A server that checks its callers: built from the files that the configuration names, and reloaded."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable

from rexec_client.version import __version__
from rexec_server.config import Config
from rexec_server.policy.allowlist import Allowlist, AllowlistAdmission
from rexec_server.policy.audit import Audit
from rexec_server.policy.authentication import CallerAuthenticator
from rexec_server.policy.callers import Callers
from rexec_server.policy.files import PolicyError
from rexec_server.policy.limits import CallLimits
from rexec_server.state_dir import StartRefused

_log = logging.getLogger(__name__)


class ProductionSecurity:
    """Callers, an allowlist and an audit; each file is named by the configuration."""

    def __init__(self, config: Config, uid: int | None = None) -> None:
        """StartRefused when any of it cannot be used. uid: whose server it is; None: this process's user's."""
        self.config = config
        self._uid = os.geteuid() if uid is None else uid
        self._reloading = threading.Lock()
        self.features: frozenset[str] = frozenset()
        assert config.callers is not None
        assert config.policy is not None
        _refuse_tracing()
        try:
            callers, self._allowlist = Callers.load(config.callers), Allowlist.load(config.policy)
            self.journal = Audit.open(config.audit or f"{config.state_dir}/audit.jsonl")
        except PolicyError as error:
            raise StartRefused(str(error)) from error
        self.recorder = self.journal
        self.authenticator = CallerAuthenticator(callers, config.audience, config.failed_auth)
        self.admission = AllowlistAdmission(self._allowlist, config.caller_starts, config.all_starts)
        self.limits = CallLimits(config.caller_calls)
        self.recorder.event("started", None, version=__version__)

    def check_host(self, features: Iterable[str]) -> None:
        self.features = frozenset(features)
        try:
            self._check(self._allowlist)
        except PolicyError as error:
            raise StartRefused(str(error)) from error

    def reload(self) -> None:
        """On SIGHUP: each part by itself, so that a mistake in one file keeps only that one as it was."""
        with self._reloading:  # each SIGHUP has a thread
            self._reload("callers", self._reload_callers)
            self._reload("policy", self._reload_policy)
            self._reopen_audit()

    def close(self) -> None:
        self.recorder.event("stopped", None)
        self.journal.close()

    def _reload(self, what: str, again: Callable[[], None]) -> None:
        try:
            again()
        except PolicyError as error:
            _log.error("%s NOT reloaded, the old ones stay in force: %s", what, error)
            problem = str(error)
        except Exception as error:
            # Nobody waits for this thread, so it is said here, or nowhere. Its text may hold anything.
            _log.exception("%s NOT reloaded, the old ones stay in force", what)
            problem = f"{type(error).__name__}; the log has more"
        else:
            _log.info("%s reloaded", what)
            self.journal.event("reloaded", None, what=what)
            return
        self.journal.event("reload_failed", None, what=what, error=problem)

    def _reopen_audit(self) -> None:
        try:
            self.journal.reopen()
        except PolicyError as error:
            _log.error("audit NOT reopened, it stays where it is: %s", error)
        except Exception:
            _log.exception("audit NOT reopened, it stays where it is")
        else:
            _log.info("audit reopened")

    def _reload_callers(self) -> None:
        # A table in the configuration itself is as it was: the configuration is read once.
        if isinstance(self.config.callers, str):
            self.authenticator.replace(Callers.load(self.config.callers))

    def _reload_policy(self) -> None:
        assert self.config.policy is not None
        allowlist = Allowlist.load(self.config.policy)
        self._check(allowlist)
        self.admission.replace(allowlist)

    def _check(self, allowlist: Allowlist) -> None:
        """PolicyError when it declares what this host cannot do, or leaves to chance who a command runs as."""
        missing = allowlist.requirements - self.features
        if missing:
            raise PolicyError(f"{self.config.policy} declares what this host cannot do: {_explain(missing)}")
        if allowlist.as_runner and "run_as" in self.features and self._uid != 0:
            raise PolicyError(
                f"{self.config.policy}: rule {allowlist.as_runner[0]!r} has no run_as, and rexec-runner is root:"
                ' name a user, be it run_as = "root"'
            )


def _refuse_tracing() -> None:
    """gRPC's traces show metadata, and with it every token."""
    for name in ("GRPC_TRACE", "GRPC_VERBOSITY"):
        value = os.environ.get(name, "")
        if value and not (name == "GRPC_VERBOSITY" and value.upper() in ("NONE", "ERROR", "INFO")):
            raise StartRefused(f"{name}={value} makes gRPC write down tokens; unset it")


def _explain(missing: Iterable[str]) -> str:
    needs = {
        "run_as": "run_as needs a runner that is root",
        "cgroup.memory": "cgroup.memory needs the memory controller of a delegated cgroup v2",
        "cgroup.pids": "cgroup.processes needs the pids controller of a delegated cgroup v2",
        "cgroup.cpu": "cgroup.cpus needs the cpu controller of a delegated cgroup v2",
    }
    return "; ".join(needs.get(name, name) for name in sorted(missing))
