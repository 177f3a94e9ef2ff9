"""Limits of the system, against what the configuration allows at once."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject

# Descriptors: of a runner that has taken over from a shim; of a server for one reader of the log beside its connection.
_RUNNER_FILES = 10
_READER_FILES = 2
_OWN_FILES = 128
# A shim and a command that starts nothing else, at least; and the threads of server and gateway.
_PROCESSES = 2
_OWN_PROCESSES = 128


def check_open_files(subject: Subject) -> Iterator[Finding]:
    config = subject.config
    of_server = subject.host.limit(resource.RLIMIT_NOFILE, subject.server_pid or 0)
    of_runner = subject.host.limit(resource.RLIMIT_NOFILE, subject.runner_pid or 0)
    for_runner = _OWN_FILES + _RUNNER_FILES * config.max_running
    for_server = _OWN_FILES + config.max_running + _READER_FILES * config.max_followers
    if of_runner.hard is not None and of_runner.hard < for_runner:
        yield fail(
            "open files",
            f"at most {of_runner.hard}; {config.max_running} executions may need {for_runner}",
            f"LimitNOFILE={for_runner} in the runner's unit (ulimit -Hn), or lower --max-running",
        )
    elif of_server.soft is not None and of_server.soft < for_server:
        yield warn(
            "open files",
            f"{of_server.soft}; {config.max_followers} followers on connections of their own may need {for_server}",
            f"LimitNOFILE={for_server} in the server's unit (ulimit -n), or lower --max-followers",
        )
    else:
        yield ok("open files", "unlimited" if of_server.soft is None else str(of_server.soft))


def check_processes(subject: Subject) -> Iterator[Finding]:
    """RLIMIT_NPROC, kernel.pid_max and the cgroup's pids.max: the lowest of them holds."""
    wanted = _OWN_PROCESSES + _PROCESSES * subject.config.max_running
    of_user = None if subject.host.uid == 0 else subject.host.limit(resource.RLIMIT_NPROC, subject.runner_pid or 0).soft
    bounds = (
        ("the user's limit", of_user, "LimitNPROC= in the units (ulimit -u)"),
        ("kernel.pid_max", subject.host.sysctl("kernel/pid_max"), "sysctl kernel.pid_max"),
        (
            "pids.max of our cgroup",
            subject.host.cgroup_processes(),
            "TasksMax= in the units (--pids-limit of a container)",
        ),
    )
    low = [(name, value, how) for name, value, how in bounds if value is not None and value < wanted]
    for name, value, how in low:
        yield fail(
            "processes",
            f"{name} is {value}; {subject.config.max_running} executions need {wanted} at least",
            f"raise it: {how}; or lower --max-running",
        )
    if not low:
        yield ok("processes", ", ".join(f"{name} {value}" for name, value, _ in bounds if value is not None))


def check_inotify(subject: Subject) -> Iterator[Finding]:
    """One watch for the end of each execution, one for the output of each that is followed."""
    wanted = 2 * subject.config.max_running
    watches = subject.host.sysctl("fs/inotify/max_user_watches")
    instances = subject.host.sysctl("fs/inotify/max_user_instances")
    if watches is None or instances is None or instances < 1:
        yield warn("inotify", "there is none", "followers are up to 50 ms late; use a kernel with inotify")
    elif watches < wanted:
        yield warn(
            "inotify",
            f"{watches} watches; {subject.config.max_running} executions need {wanted}",
            f"sysctl fs.inotify.max_user_watches={wanted}; without, followers are up to 50 ms late",
        )
    else:
        yield ok("inotify", f"{watches} watches")
