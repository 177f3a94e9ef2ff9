"""Callers, policy and audit: the files that say who may do what."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject
from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.callers import CallerEntry, Callers
from rexec_server.policy.files import PolicyError

_JOURNALD = "journald"
_JOURNAL_SOCKET = "/run/systemd/journal/socket"


def check_callers(subject: Subject) -> Iterator[Finding]:
    if subject.config.dev:
        yield ok("callers", "--dev: everybody on this machine")
        return
    assert subject.config.callers is not None
    try:
        callers = Callers.load(subject.config.callers)
    except PolicyError as error:
        yield fail("callers", str(error), "correct the file; docs/security.md has its format")
        return
    now = subject.host.now
    expired = [one.name for one in callers.entries if _has_expired(one, now)]
    if expired:
        yield warn(
            "callers",
            f"all keys of {', '.join(expired)} have expired",
            "rexec-server keys new --caller NAME; then SIGHUP to the server",
        )
    else:
        yield ok("callers", f"{len(callers.entries)}")


def _has_expired(caller: CallerEntry, now: float) -> bool:
    return bool(caller.enabled and caller.keys and not caller.uris and not any(key.usable(now) for key in caller.keys))


def check_policy(subject: Subject) -> Iterator[Finding]:
    if subject.config.dev:
        yield ok("policy", "--dev: anything may be run")
        return
    assert subject.config.policy is not None
    try:
        allowlist = Allowlist.load(subject.config.policy)
    except PolicyError as error:
        yield fail("policy", str(error), "correct it; rexec-server policy check FILE says more")
    else:
        yield ok("policy", f"{len(allowlist.rules)} rules, {allowlist.tests} tests")


def check_audit(subject: Subject) -> Iterator[Finding]:
    """A run that cannot be recorded is refused; so what is written there must be writable."""
    if subject.config.dev:
        return
    where = subject.config.audit or f"{subject.state_dir}/audit.jsonl"
    if where == _JOURNALD:
        if os.path.exists(_JOURNAL_SOCKET):
            yield ok("audit", where)
        else:
            yield fail("audit", f"{_JOURNAL_SOCKET} is not there", "start systemd-journald, or name a file")
        return
    directory = os.path.dirname(os.path.abspath(where))
    target = where if os.path.exists(where) else directory
    if not os.path.exists(target) and directory == subject.state_dir:
        yield ok("audit", f"{where}; not there yet")
    elif os.access(target, os.W_OK):
        yield ok("audit", where)
    else:
        yield fail("audit", f"we cannot write {where}", f"let the server's user write in {directory}")
