"""Starting the command's own process: fork, barrier, confinement, limits, exec.

The child waits behind a barrier until its identity is on disk, so a command that runs without a start record does
not exist. A failure before or in exec is written into the exit draft by the child itself: it is told apart from the
command's own exit code even when the shim died meanwhile.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import resource
import signal
from typing import NamedTuple, NoReturn

from rexec_server.core.launch import Launch
from rexec_server.core.spool import EXIT_RECORD_BYTES, StartError
from rexec_server.runner import confine
from rexec_server.runner.cgroup import Cgroup
from rexec_server.runner.heritage import Heritage

_BARRIER_OPEN = b"x"
NOT_EXECUTED = 127  # the exit code of its process, where it has not come to be the command's
# An error's text has its place in the exit record, which is 4 KiB; JSON may need twelve bytes for a character.
_LONGEST = 300

_RESOURCES = {
    "memory_bytes": resource.RLIMIT_AS,
    "cpu_seconds": resource.RLIMIT_CPU,
    "processes": resource.RLIMIT_NPROC,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
}


class Stdio(NamedTuple):
    """The command's ends of its standard streams."""

    stdin: int
    stdout: int
    stderr: int


class Born(NamedTuple):
    """A process behind its barrier: write to `barrier` to let it exec; `failure` tells how that went."""

    pid: int
    barrier: int
    failure: int

    def release(self) -> StartError | None:
        """Lets it exec. Returns why it never will when it is dead already; else `failure` tells, sooner or later."""
        try:
            os.write(self.barrier, _BARRIER_OPEN)
        except BrokenPipeError:
            return StartError("ECANCELED", "its process died before it was executed")
        finally:
            os.close(self.barrier)
        return None

    def cancel(self) -> None:
        """Ends it instead."""
        os.kill(self.pid, signal.SIGKILL)  # it is ours, and unreaped
        os.close(self.barrier)


def fork_command(launch: Launch, stdio: Stdio, exit_draft: int, cgroup: Cgroup | None, heritage: Heritage) -> Born:
    """Forks the command's process, which waits behind its barrier. OSError (EAGAIN) when there are too many."""
    barrier_read, barrier_write = os.pipe2(os.O_CLOEXEC)
    failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
    born_inside = cgroup.fork() if cgroup else None
    try:
        pid = os.fork() if born_inside is None else born_inside
    except OSError:
        for fd in (barrier_read, barrier_write, failure_read, failure_write):
            os.close(fd)
        raise
    if pid == 0:
        os.close(barrier_write)
        os.close(failure_read)
        to_enter = cgroup if born_inside is None else None
        _run_child(launch, stdio, barrier_read, failure_write, exit_draft, to_enter, heritage)
    os.close(barrier_read)
    os.close(failure_write)
    return Born(pid, barrier_write, failure_read)


def _run_child(
    launch: Launch,
    stdio: Stdio,
    barrier: int,
    failure: int,
    exit_draft: int,
    cgroup: Cgroup | None,
    heritage: Heritage,
) -> NoReturn:
    step = "start"
    note = None
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what ends a command ends it here too
        # Mapped, since the command's limits hold for files that are written, and a note must always find its place.
        note = mmap.mmap(exit_draft, EXIT_RECORD_BYTES)
        os.setsid()
        step = "enter its cgroup"
        if cgroup:
            cgroup.enter(strict=confine.needs_cgroup(launch.confinement))
        if os.read(barrier, 1) != _BARRIER_OPEN:
            raise OSError(errno.ECANCELED, "its supervisor died before it was started")
        step = "set up its streams"
        _set_stdio(stdio)
        os.umask(launch.umask)
        heritage.give_back()
        step = "limit its processes"
        _limit("processes", launch.limits.processes)  # first: a user who has too many is refused in the exec
        for name, apply in confine.steps(launch.confinement):
            step = name
            apply()
        step = f"change to directory {launch.working_directory!r}"
        os.chdir(launch.working_directory.encode())  # as the user, who may not be allowed to
        step = "apply its limits"
        for name, value in launch.limits._asdict().items():
            _limit(name, value)  # last: they may be too small for what comes before an exec
        step = f"execute {launch.arguments[0]!r}"
        _exec(launch.arguments, launch.environment)
    except BaseException as error:  # whatever it is, it must not pass for the command's own exit
        _tell_failure(error, step, failure, note)
    finally:
        os._exit(NOT_EXECUTED)


def _set_stdio(stdio: Stdio) -> None:
    # All three are 3 or higher: 0 to 2 are the shim's own, so no dup2 overwrites a source.
    for target, fd in enumerate(stdio):
        os.dup2(fd, target, inheritable=True)


def _limit(name: str, value: int) -> None:
    """At most what we may give; 0 leaves it as it is."""
    if value:
        _, hard = resource.getrlimit(_RESOURCES[name])
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(_RESOURCES[name], (ceiling, ceiling))


def _exec(arguments: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """execvpe(3), but no shell is tried for a script without a #! line, and the error is the best candidate's."""
    program, search_path = arguments[0], environment.get("PATH", os.defpath)
    # As UTF-8, whatever the locale that we were started in.
    argv = [argument.encode() for argument in arguments]
    env = {name.encode(): value.encode() for name, value in environment.items()}
    if "/" in program:
        os.execve(argv[0], argv, env)
    blocked: OSError = FileNotFoundError(errno.ENOENT, f"no such program in PATH={search_path}")
    for directory in search_path.split(":"):
        try:
            os.execve(os.path.join(directory or ".", program).encode(), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            blocked = error
    raise blocked


def _tell_failure(error: BaseException, step: str, failure: int, note: mmap.mmap | None) -> None:
    number = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
    text = (error.strerror if isinstance(error, OSError) else str(error)) or os.strerror(number)
    start_error = StartError(errno.errorcode.get(number, str(number)), f"could not {step}: {text}"[:_LONGEST])
    data = json.dumps({"start_error": start_error}).encode() + b"\n"
    # First where it lasts: the shim may be dead, and then the write to its pipe is our own death.
    if note is not None:
        note[: len(data)] = data
    os.write(failure, data)
