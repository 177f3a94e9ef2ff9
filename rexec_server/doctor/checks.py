"""All checks, in the order in which a person would look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rexec_server.doctor.certificates import check_certificates
from rexec_server.doctor.cgroups import check_cgroup
from rexec_server.doctor.clock import check_clock
from rexec_server.doctor.finding import Finding, fail
from rexec_server.doctor.limits import check_inotify, check_open_files, check_processes
from rexec_server.doctor.records import check_index, check_leftovers, check_spool
from rexec_server.doctor.rules import check_audit, check_callers, check_policy
from rexec_server.doctor.runner import check_run_as, check_runner
from rexec_server.doctor.software import check_kernel, check_packages, check_python
from rexec_server.doctor.state import check_directory, check_filesystem, check_room
from rexec_server.doctor.subject import Check, Subject

CHECKS: Sequence[Check] = (
    check_python,
    check_packages,
    check_kernel,
    check_cgroup,
    check_clock,
    check_open_files,
    check_processes,
    check_inotify,
    check_directory,
    check_filesystem,
    check_room,
    check_index,
    check_spool,
    check_leftovers,
    check_runner,
    check_run_as,
    check_callers,
    check_policy,
    check_audit,
    check_certificates,
)


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> Iterator[Finding]:
    """Makes each check; one that cannot be made is a failure of its own, and stops no other."""
    for check in checks:
        try:
            yield from check(subject)
        except Exception as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            yield fail(name, f"could not be checked: {type(error).__name__}: {error}", "report this, with the message")
