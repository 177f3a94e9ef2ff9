"""Cgroup v2: with it, limits hold for a whole command, and no process of it can hide."""

from __future__ import annotations

from collections.abc import Iterator

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject
from rexec_server.runner.cgroup import WANTED

_DELEGATE = "Delegate=yes and DelegateSubgroup=rexec-runner in the runner's unit"
_WITHOUT = "a process that forks and exits without rest may outlive its command, and no rule can have cgroup limits"


def check_cgroup(subject: Subject) -> Iterator[Finding]:
    there = _controllers(subject)
    declared = _declared(subject)
    lacking = sorted(declared - set(there or ()))
    if lacking:
        yield fail(
            "cgroup", f"rules declare {', '.join(f'cgroup.{name}' for name in lacking)}, which are not there", _DELEGATE
        )
    elif there is None:
        mounted = subject.host.cgroup_mount() is not None
        found = "none is delegated" if mounted else "cgroup v2 is not mounted"
        yield warn(
            "cgroup",
            f"{found}: {_WITHOUT}",
            _DELEGATE if mounted else "mount cgroup2, or boot with the unified hierarchy",
        )
    elif missing := [name for name in WANTED if name not in there]:
        yield warn("cgroup", f"delegated, without {', '.join(missing)}: no rule can limit that", _DELEGATE)
    else:
        yield ok("cgroup", f"delegated, with {', '.join(WANTED)}")


def _controllers(subject: Subject) -> list[str] | None:
    """What the runner has; without one, what it would find where we are. None: no cgroup at all."""
    if subject.runner is not None:
        return list(subject.runner.get("controllers", ())) if subject.runner.get("cgroup") else None
    path = subject.host.delegated_cgroup()
    return None if path is None else subject.host.cgroup_controllers(path)


def _declared(subject: Subject) -> set[str]:
    needs = subject.allowlist.requirements if subject.allowlist else ()
    return {need.removeprefix("cgroup.") for need in needs if need.startswith("cgroup.")}
