"""Executions without a living shim: left behind when one dies under the runner, or found when a runner starts."""

from __future__ import annotations

import os
from collections.abc import Callable

from rexec_server.core.launch import Overflow
from rexec_server.core.spool import (
    EXIT,
    FIFO_OUT,
    ExitRecord,
    Reason,
    StartError,
    StartRecord,
    read_start,
)
from rexec_server.runner import linux
from rexec_server.runner.cgroup import Cgroup
from rexec_server.runner.control import Control
from rexec_server.runner.ending import ExitDraft
from rexec_server.runner.leader import Leader
from rexec_server.runner.lock import ring, take_lock
from rexec_server.runner.log_writer import LogWriter
from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.output import Discard
from rexec_server.runner.pipes import Pipes, open_stdin_writer, remove_fifos
from rexec_server.runner.shim import Site
from rexec_server.runner.stdin import StdinFeed
from rexec_server.runner.supervision import Parts, Supervision, Terms
from rexec_server.runner.tree import ProcessTree, relatives

RETRY_SECONDS = 0.01


class Takeover:
    """Supervises in the runner's own process what has lost its shim.

    `on_gone(execution)` is called when nothing of an execution is left to be done.
    """

    def __init__(self, loop: Loop, site: Site, on_gone: Callable[[str], None]) -> None:
        self._loop = loop
        self._site = site
        self._on_gone = on_gone
        self.leaders: set[int] = set()  # pids that are left unreaped until their end is recorded

    def take(self, execution: str, directory: int, pipes: Pipes, orphans: set[int]) -> None:
        """Takes over an execution whose shim is dead. `orphans` became our children by that death, and are its own."""
        if is_ended(directory):
            return self._discard(execution, directory, pipes)
        lock = take_lock(directory)
        if lock is None:
            # A process that the shim forked, and that has not reached its exec, shares the lock until then.
            self._loop.call_later(RETRY_SECONDS, lambda: self.take(execution, directory, pipes, orphans))
            return
        draft = ExitDraft(directory)
        start = read_start(directory)
        if draft.complete_interrupted():
            self._clear(execution, directory, lock, pipes)
        elif start is None:
            draft.finish(not_started("its shim died before it was started"))
            self._clear(execution, directory, lock, pipes)
        else:
            self._continue(execution, directory, lock, pipes, draft, start, orphans)

    def await_shim(self, execution: str, directory: int, pipes: Pipes) -> None:
        """Waits for the death of a shim that is not our child, from before this runner."""
        start = read_start(directory)
        pidfd = linux.open_pidfd(start.shim_pid, start.shim_start) if start else None
        if pidfd is None:  # about to write its start record, or just dead
            self._loop.call_later(RETRY_SECONDS, lambda: self.find(execution, directory, pipes))
            return

        def died(_: int) -> None:
            self._loop.unwatch(pidfd)
            os.close(pidfd)
            self.take(execution, directory, pipes, set())

        self._loop.watch(pidfd, READ, died)

    def find(self, execution: str, directory: int, pipes: Pipes) -> None:
        """Deals with an execution from before this runner: the lock tells whether its shim lives."""
        lock = None if is_ended(directory) else take_lock(directory)
        if lock is not None:
            os.close(lock)
            self.take(execution, directory, pipes, set())
        elif is_ended(directory):
            self.take(execution, directory, pipes, set())
        else:
            self.await_shim(execution, directory, pipes)

    def _continue(
        self,
        execution: str,
        directory: int,
        lock: int,
        pipes: Pipes,
        draft: ExitDraft,
        start: StartRecord,
        orphans: set[int],
    ) -> None:
        path = os.readlink(f"/proc/self/fd/{directory}")
        cgroup = Cgroup.existing(self._site.cgroup_base, execution)
        tree = ProcessTree(start.pid, start.pid_start, lambda: {*orphans, *relatives(start.pid, path)}, cgroup)
        pidfd = linux.open_pidfd(start.pid, start.pid_start) if start.boot_id == self._site.boot_id else None
        if pidfd is None:
            if start.boot_id == self._site.boot_id:
                tree.kill()
            draft.finish(self._unknowable(directory, draft, start))
            return self._clear(execution, directory, lock, pipes)

        def gone() -> None:
            os.close(lock)
            os.close(directory)
            pipes.release_stdin()
            self._on_gone(execution)

        def ended() -> None:
            self.leaders.discard(start.pid)
            control.close()

        self.leaders.add(start.pid)
        leader = Leader(start.pid, pidfd)
        stdin = self._feed(directory, pipes)
        parts = Parts(directory, lock, leader, tree, draft, pipes.outputs, stdin, cgroup, writer="runner")
        supervision = Supervision(self._loop, Terms.from_json(start.supervision), parts, ended, gone)
        control = Control(self._loop, directory, supervision, self._site.trusted_uids)
        supervision.start()

    def _feed(self, directory: int, pipes: Pipes) -> StdinFeed | None:
        writer = open_stdin_writer(directory) if pipes.stdin >= 0 else -1
        return StdinFeed(self._loop, directory, writer, pipes.release_stdin) if writer >= 0 else None

    def _unknowable(self, directory: int, draft: ExitDraft, start: StartRecord) -> ExitRecord:
        """The record of a command that is gone, and whose status nobody has seen."""
        start_error = draft.start_error()
        if start_error:
            return not_started(start_error.message, start_error.errno)
        same_boot = start.boot_id == self._site.boot_id
        log = LogWriter(directory, 1, Overflow.DROP_OLDEST)
        log.close()
        stdout, stderr = log.produced.values()
        why = "it ended while neither its shim nor the runner was alive" if same_boot else "the machine was restarted"
        return ExitRecord(
            Reason.LOST, linux.now_ns(), stdout, stderr, output_complete=False, lost=why, written_by="runner"
        )

    def _discard(self, execution: str, directory: int, pipes: Pipes) -> None:
        """The record is written; kept leftovers may still write, and must not block."""
        cgroup = Cgroup.existing(self._site.cgroup_base, execution)
        if cgroup:
            cgroup.remove()  # now that also the last orphan is reaped
        has_fifos = os.access(FIFO_OUT, os.F_OK, dir_fd=directory)
        os.close(directory)
        pipes.release_stdin()
        if not has_fifos:  # the usual end
            pipes.close()
            self._on_gone(execution)
        else:
            Discard(self._loop, list(pipes.outputs.values()), lambda: self._on_gone(execution))

    def _clear(self, execution: str, directory: int, lock: int, pipes: Pipes) -> None:
        remove_fifos(directory)
        ring(lock)
        os.close(lock)
        os.close(directory)
        pipes.close()
        self._on_gone(execution)


def is_ended(directory: int) -> bool:
    return os.access(EXIT, os.F_OK, dir_fd=directory)


def not_started(why: str, name: str = "ECANCELED") -> ExitRecord:
    """The record of a command that certainly was never executed."""
    return ExitRecord(
        Reason.START_FAILED,
        linux.now_ns(),
        0,
        0,
        output_complete=True,
        start_error=StartError(name, why),
        written_by="runner",
    )


def abandon(directory: int, why: str, name: str = "ECANCELED") -> None:
    """Records in a directory that was just claimed that its command will never be started."""
    lock = take_lock(directory)
    if lock is None:
        return  # its shim lives
    if not is_ended(directory) and read_start(directory) is None:
        ExitDraft(directory).finish(not_started(why, name))
        ring(lock)
    os.close(lock)
