"""The runner: whether it answers, is of our version, and can do what the rules ask of it."""

from __future__ import annotations

from collections.abc import Iterator

from rexec_client.version import __version__
from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject


def check_runner(subject: Subject) -> Iterator[Finding]:
    runner = subject.runner
    if runner is None:
        yield _silent(subject)
        return
    version = runner.get("version", "unknown")
    if version != __version__:
        yield warn(
            "runner",
            f"pid {runner['pid']} is of version {version}, and this is {__version__}",
            "restart the server: it brings it along" if subject.config.start_runner else f"kill -HUP {runner['pid']}",
        )
    else:
        yield ok("runner", f"pid {runner['pid']}, version {version}, uid {runner['uid']}")


def _silent(subject: Subject) -> Finding:
    if subject.runner_pid is not None:
        return fail(
            "runner",
            f"pid {subject.runner_pid} does not answer us",
            "run doctor as the server's user, whom the runner trusts; if it is stopped, continue or kill it",
        )
    if subject.config.start_runner:
        return ok("runner", "none runs; the server starts one")
    return fail("runner", "none runs, and --no-start-runner says that another unit starts it", "start rexec-runner")


def check_run_as(subject: Subject) -> Iterator[Finding]:
    """A rule that names a user needs a runner that is root, and beside such a runner each rule must name one."""
    allowlist, uid = subject.allowlist, _runners_uid(subject)
    if allowlist is None or uid is None:
        return
    if "run_as" in allowlist.requirements and uid != 0:
        yield fail(
            "run_as",
            f"rules name a user, and the runner is uid {uid}",
            "start rexec-runner as root, as a unit of its own",
        )
    elif allowlist.as_runner and uid == 0 and subject.host.uid != 0:
        yield fail(
            "run_as",
            f"rule {allowlist.as_runner[0]!r} names no user, and the runner is root",
            'say run_as in each rule, be it "root"',
        )
    else:
        yield ok("run_as", "commands run as the rules say")


def _runners_uid(subject: Subject) -> int | None:
    """None: no runner answers, and a unit of its own will start it."""
    if subject.runner is not None:
        return int(subject.runner["uid"])
    return subject.host.uid if subject.config.start_runner else None
