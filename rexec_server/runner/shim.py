"""The shim: one process per execution, forked by the runner, that starts the command and sees it to its end."""

from __future__ import annotations

import errno
import gc
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from rexec_server.core.executed import has_executed
from rexec_server.core.launch import Launch, StderrMode, StdinMode
from rexec_server.core.spool import START, Channel, ExitRecord, Reason, StartError, StartRecord, open_regular
from rexec_server.runner import linux
from rexec_server.runner.cgroup import Cgroup, Delegation
from rexec_server.runner.confine import needs_cgroup
from rexec_server.runner.control import Control
from rexec_server.runner.counters import reserve_state
from rexec_server.runner.ending import ExitDraft
from rexec_server.runner.heritage import Heritage
from rexec_server.runner.leader import Leader
from rexec_server.runner.lock import ring, take_lock
from rexec_server.runner.loop import Loop
from rexec_server.runner.pipes import Pipes, open_commands_input, open_commands_output, open_stdin_writer, remove_fifos
from rexec_server.runner.records import is_ended
from rexec_server.runner.spawn import Born, Stdio, fork_command
from rexec_server.runner.starting import Report, Starting
from rexec_server.runner.stdin import StdinFeed, StdinWrite, tell_runner_of_eof
from rexec_server.runner.supervision import Parts, Supervision, Terms
from rexec_server.runner.tree import ProcessTree, children


class Site(NamedTuple):
    """Where the supervisors of a runner work and whom they serve."""

    delegation: Delegation | None
    boot_id: str
    trusted_uids: frozenset[int]
    heritage: Heritage

    @property
    def cgroup_base(self) -> str | None:
        return self.delegation.base if self.delegation else None


class Order(NamedTuple):
    """One execution that a shim is forked for: its name, its open directory, our ends of its FIFOs."""

    execution: str
    directory: int
    launch: Launch
    pipes: Pipes
    report: int  # takes one message: that the command was started, or why not
    reserved: dict[str, Any]  # whose execution it is: what the start record repeats of it


def run_shim(order: Order, site: Site) -> NoReturn:
    """Runs in the forked child, and never returns to the runner's code."""
    try:
        _keep_only(order)
        signal.set_wakeup_fd(-1)  # the runner's
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        linux.set_process_name(f"shim {order.execution}")
        linux.become_subreaper()
        gc.disable()  # collecting would only copy the runner's pages
        lock = take_lock(order.directory)
        # It may have been given up before we came to it: another holds the lock then, or its end is on record.
        if lock is not None and not is_ended(order.directory):
            _supervise(order, lock, site)
    except BaseException:
        _leave_traceback(order.directory)
    finally:
        os._exit(0)


def _keep_only(order: Order) -> None:
    """Closes all that is the runner's, so that nothing of it outlives the runner by accident."""
    keep = sorted({2, order.directory, order.report, *order.pipes.descriptors})
    for low, high in zip(keep, [*keep[1:], 1 << 30], strict=True):
        os.closerange(low + 1, high)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _supervise(order: Order, lock: int, site: Site) -> None:
    draft, report = ExitDraft(order.directory), Report(order.report)
    try:
        ring(lock)
        if order.launch.stdin_mode == StdinMode.OPEN:
            reserve_state(order.directory)
        stdio = _open_commands_side(order)
        cgroup = _enter_cgroup(order, site)
        born = fork_command(order.launch, stdio, draft.fd, cgroup, site.heritage)
    except OSError as error:
        start_error = StartError(errno_name(error), f"could not prepare the start: {error.strerror}")
        _fail(order, draft, lock, start_error)
        return report.tell({"start_error": start_error})
    for fd in set(stdio):
        os.close(fd)
    order.pipes.release_stdin()
    leader = Leader.of_child(born.pid)
    writer = open_stdin_writer(order.directory) if order.launch.stdin_mode == StdinMode.OPEN else -1
    terms = Terms.of(order.launch)
    start_ticks = linux.start_ticks(born.pid)
    assert start_ticks is not None  # it is unreaped
    failure = _release(order, born, start_ticks, terms, site.boot_id)

    loop = Loop()
    tree = ProcessTree(born.pid, start_ticks, _own_children(born.pid), cgroup)
    stdin = _feed_stdin(loop, order, writer)
    parts = Parts(order.directory, lock, leader, tree, draft, order.pipes.outputs, stdin, cgroup, writer="shim")

    def ended() -> None:
        control.close()
        if not supervision.start_error:
            report.tell({"pid": born.pid})

    def decided(error: StartError | None) -> None:
        supervision.start_error = supervision.start_error or error
        if not supervision.start_error and has_executed(born.pid, start_ticks):
            report.tell({"pid": born.pid})  # else it is about to end, and that is told then

    supervision = Supervision(loop, terms, parts, ended, on_gone=loop.stop)
    supervision.start_error = failure
    control = Control(loop, order.directory, supervision, site.trusted_uids)
    loop.on_child(lambda: supervision.reap_orphans(children(os.getpid())))
    supervision.reap_orphans(children(os.getpid()))  # what came before that went unnoticed
    Starting(loop, born.failure, decided)
    supervision.start()
    loop.run()
    report.tell({"start_error": supervision.start_error})


def _release(order: Order, born: Born, start_ticks: int, terms: Terms, boot_id: str) -> StartError | None:
    """Lets the command go on to its exec once it is on record. Returns why it never will."""
    try:
        _write_start(order, born.pid, start_ticks, terms, boot_id)
    except OSError as error:
        born.cancel()
        return StartError(errno_name(error), f"could not record the start: {error.strerror}")
    return born.release()


def _open_commands_side(order: Order) -> Stdio:
    out = err = open_commands_output(order.directory, Channel.STDOUT)
    if order.launch.stderr_mode == StderrMode.SEPARATE:
        err = open_commands_output(order.directory, Channel.STDERR)
    return Stdio(_open_commands_stdin(order), out, err)


def _open_commands_stdin(order: Order) -> int:
    if order.launch.stdin_mode == StdinMode.OPEN:
        return open_commands_input(order.directory)
    if order.launch.stdin_mode == StdinMode.BYTES and order.launch.initial_stdin:
        memory = os.memfd_create("stdin", os.MFD_CLOEXEC)
        os.write(memory, order.launch.initial_stdin)
        os.lseek(memory, 0, os.SEEK_SET)
        return memory
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _enter_cgroup(order: Order, site: Site) -> Cgroup | None:
    cgroup = Cgroup.create(site.cgroup_base, order.execution) if site.cgroup_base else None
    if cgroup:
        cgroup.limit(order.launch.limits, order.launch.confinement)
    elif needs_cgroup(order.launch.confinement):
        raise OSError(errno.ENOTSUP, "its limits need a cgroup, and none is delegated to the runner")
    return cgroup


def _write_start(order: Order, pid: int, ticks: int, terms: Terms, boot_id: str) -> None:
    """Puts the command's identity on disk, which its exec waits for. OSError."""
    own_ticks = linux.start_ticks(os.getpid())
    assert own_ticks is not None
    names = {name: order.reserved[name] for name in ("caller", "exec_id", "digest") if name in order.reserved}
    record = StartRecord(pid, ticks, os.getpid(), own_ticks, boot_id, linux.now_ns(), terms.to_json(), **names)
    fd = open_regular(START, os.O_WRONLY | os.O_CREAT, order.directory)
    data = record.to_bytes()
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _feed_stdin(loop: Loop, order: Order, writer: int) -> StdinFeed | None:
    if writer < 0:
        return None
    feed = StdinFeed(loop, order.directory, writer, lambda: tell_runner_of_eof(loop, order.directory, order.execution))
    if order.launch.initial_stdin:
        feed.write(StdinWrite(0, order.launch.initial_stdin, eof=False, done=lambda _: None))
    return feed


def _own_children(leader: int) -> Callable[[], list[int]]:
    """We are the subreaper: what the command started is below it, or has become ours."""
    own = os.getpid()
    return lambda: [leader, *children(own)]


def errno_name(error: OSError) -> str:
    """The system's name of an error, such as EAGAIN."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _fail(order: Order, draft: ExitDraft, lock: int, error: StartError) -> None:
    draft.finish(ExitRecord(Reason.START_FAILED, linux.now_ns(), 0, 0, output_complete=True, start_error=error))
    remove_fifos(order.directory)
    ring(lock)


def _leave_traceback(directory: int) -> None:
    """A shim has no standard error; what went wrong with it is beside the execution's other files."""
    fd = open_regular("shim.error", os.O_WRONLY | os.O_CREAT | os.O_APPEND, directory)
    os.write(fd, traceback.format_exc().encode())
    os.close(fd)
