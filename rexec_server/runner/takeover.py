"""Executions without a living shim: left behind when one dies under the runner, or found when a runner starts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from rexec_server.core.executed import has_executed
from rexec_server.core.launch import Overflow
from rexec_server.core.spool import (
    CONTROL,
    FIFO_OUT,
    LOCK,
    STDIN_STATE,
    Channel,
    ExitRecord,
    StartRecord,
    read_exit,
    read_start,
    read_stdin_state,
)
from rexec_server.runner import linux
from rexec_server.runner.cgroup import Cgroup
from rexec_server.runner.control import Control
from rexec_server.runner.counters import reserve_uncertain
from rexec_server.runner.ending import ExitDraft, finish_unseen
from rexec_server.runner.family import Family
from rexec_server.runner.leader import Leader
from rexec_server.runner.lock import hold_lock, open_lock, ring, take_lock
from rexec_server.runner.log_writer import DamagedLog, LogWriter
from rexec_server.runner.loop import READ, Loop, Timer
from rexec_server.runner.mending import mend_log, sync_log
from rexec_server.runner.output import Discard, hung_up
from rexec_server.runner.pipes import Pipes, let_hang_up, remove_fifos
from rexec_server.runner.records import is_ended, lost, never_executed, not_started, readable_start
from rexec_server.runner.shim import Site
from rexec_server.runner.stdin import StdinFeed
from rexec_server.runner.supervision import UNKILLABLE_SECONDS, Parts, Supervision, Terms
from rexec_server.runner.tree import ProcessTree, alive, relatives
from rexec_server.runner.vanished import Undertaker
from rexec_server.runner.wire import remove_socket

RETRY_SECONDS = 0.01
LOCK_RETRY_SECONDS = 0.1
# How soon to try again what a full disk, or too many open files, did not allow.
NO_ROOM_RETRY_SECONDS = 0.5
RESTARTED = "the machine was restarted"
_UNSEEN = "it ended while neither its shim nor the runner was alive"


class Remains(NamedTuple):
    """What is there of an execution that has lost its shim. `pidfd` is the leader's, if it was opened in time."""

    execution: str
    directory: int
    pipes: Pipes
    pidfd: int | None = None
    older_boot: bool = False  # it may be from before the machine was restarted; its start record knows better
    unheld: bool = False  # for a while nobody held its FIFOs open, and what was in them then is gone


class Takeover:
    """Supervises in the runner's own process what has lost its shim.

    `on_gone(execution)` is called when nothing of an execution is left to be done.
    """

    def __init__(
        self, loop: Loop, site: Site, family: Family, undertaker: Undertaker, on_gone: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._site = site
        self._family = family
        self._undertaker = undertaker
        self._on_gone = on_gone
        self._shared_locks: dict[int, Timer] = {}  # locks that a command's process has still
        self.pidfds: dict[str, int] = {}  # of the leaders of those that are not over, where they were opened

    def take(self, remains: Remains) -> None:
        """Takes over an execution whose shim is dead."""
        directory = remains.directory
        let_hang_up(remains.pipes.outputs.values())
        try:
            ended = is_ended(directory)
            lock = None if ended else take_lock(directory) or self._share_lock(directory)
        except OSError:  # no descriptor is left, or the disk is damaged
            return self._later(NO_ROOM_RETRY_SECONDS, remains)
        if ended:
            return self._discard(remains)
        if lock is None:
            # A process that the shim forked, and that has not reached its exec, shares the lock until then.
            self._end_unreleased(remains)
            return self._later(RETRY_SECONDS, remains)
        draft = None
        try:
            draft = ExitDraft(directory)
            self._finish_or_continue(remains, lock, draft)
        except OSError:  # no descriptor is left; or the disk is full, and its place was not taken yet
            if draft:
                os.close(draft.fd)
            self._close_lock(lock)
            self._later(NO_ROOM_RETRY_SECONDS, remains)

    def find(self, remains: Remains, *, held: bool = False) -> None:
        """Deals with an execution from before this runner: the lock tells whether its shim lives.

        held: its FIFOs were held open all the time.
        """
        lives = not is_ended(remains.directory) and holds_lost_lock(remains.directory)
        lock = None if lives or is_ended(remains.directory) else take_lock(remains.directory)
        if lock is not None:
            os.close(lock)
            let_hang_up(remains.pipes.outputs.values())
            self.take(remains._replace(unheld=not held and any(map(hung_up, remains.pipes.outputs.values()))))
        elif is_ended(remains.directory):
            self.take(remains)
        else:
            self._await_shim(remains, held)

    def _later(self, seconds: float, remains: Remains) -> None:
        self._loop.call_later(seconds, lambda: self.take(remains))

    def _await_shim(self, remains: Remains, held: bool) -> None:
        """Waits for the death of a shim that is not our child, from before this runner."""
        start = readable_start(remains.directory)
        shim = linux.open_pidfd(start.shim_pid, start.shim_start) if start else None
        if start and shim is None and not has_executed(start.pid, start.pid_start):
            return self.take(remains)  # dead, and its command's process has the lock until its exec
        if start is None or shim is None:  # about to write its start record, or just dead
            self._loop.call_later(RETRY_SECONDS, lambda: self.find(remains, held=held))
            return
        if remains.pidfd is None:
            # Now, while its parent has not reaped it: later only a pidfd can tell how it ended.
            remains = remains._replace(pidfd=linux.open_pidfd(start.pid, start.pid_start))
        self._keep_pidfd(remains.execution, remains.pidfd)

        def died(_: int) -> None:
            self._loop.unwatch(shim)
            os.close(shim)
            self.take(remains)

        self._loop.watch(shim, READ, died)

    def _share_lock(self, directory: int) -> int | None:
        """Share the lock that a process hanging before its exec has from its dead shim; ours as soon as it is free."""
        start = readable_start(directory)
        if start is None or has_executed(start.pid, start.pid_start):
            return None
        lock = open_lock(directory)
        self._hold_lock_later(lock)
        return lock

    def _hold_lock_later(self, lock: int) -> None:
        if hold_lock(lock):
            self._shared_locks.pop(lock, None)
        else:
            self._shared_locks[lock] = self._loop.call_later(LOCK_RETRY_SECONDS, lambda: self._hold_lock_later(lock))

    def _close_lock(self, lock: int) -> None:
        timer = self._shared_locks.pop(lock, None)
        if timer:
            timer.cancel()
        os.close(lock)

    def _end_unreleased(self, remains: Remains) -> None:
        """Kills a process that its shim forked and did not come to release: it never will be executed."""
        if never_executed(remains.directory):
            cgroup = Cgroup.existing(self._site.cgroup_base, remains.execution)
            if cgroup:
                cgroup.kill()
            for pid in self._family.orphans_of(remains.execution):
                os.kill(pid, signal.SIGKILL)  # it is ours, and unreaped

    def _keep_pidfd(self, execution: str, pidfd: int | None) -> None:
        if pidfd is not None:
            self.pidfds[execution] = pidfd

    def _finish_or_continue(self, remains: Remains, lock: int, draft: ExitDraft) -> None:
        """The end comes first, whatever else is damaged: it is true. Then what the start record says."""
        if draft.complete_interrupted():
            return self._clear(remains, lock)
        try:
            start = read_start(remains.directory)
            if start and not self._restarted(remains):
                return self._continue(remains, lock, draft, start)
        except ValueError:
            return self._give_up(remains, lock, draft, "its start record is damaged")
        # The start record is not synced: before a power cut there may have been one.
        if start or remains.older_boot:
            finish_unseen(remains.execution, draft, self._unknowable(remains, draft, RESTARTED))
        elif never_executed(remains.directory):
            finish_unseen(remains.execution, draft, not_started("its shim died before it was started"))
        else:
            return self._give_up(remains, lock, draft, "its start record is missing")
        self._clear(remains, lock)

    def _give_up(self, remains: Remains, lock: int, draft: ExitDraft, why: str) -> None:
        """Ends what may live of an execution of which the records do not say enough, then says so."""
        self._undertaker.end(remains.execution, remains.directory, lambda: self._lose(remains, lock, draft, why))

    def _restarted(self, remains: Remains) -> bool:
        """Whether the machine was restarted since, or may have been."""
        start = readable_start(remains.directory)
        return start.boot_id != self._site.boot_id if start else remains.older_boot

    def _continue(self, remains: Remains, lock: int, draft: ExitDraft, start: StartRecord) -> None:
        execution, directory, pipes, pidfd, _, unheld = remains
        path = os.readlink(f"/proc/self/fd/{directory}")
        cgroup = Cgroup.existing(self._site.cgroup_base, execution)

        def roots() -> set[int]:
            self._family.look()
            return self._family.orphans_of(execution) | relatives(start.pid, path)

        tree = ProcessTree(start.pid, start.pid_start, roots, cgroup)
        if pidfd is None:
            pidfd = linux.open_pidfd(start.pid, start.pid_start)
        if pidfd is None or log_is_damaged(directory):
            why = _UNSEEN if pidfd is None else "its log is damaged"
            remains = remains._replace(pidfd=pidfd)
            return self._bury(remains, lock, draft, tree, why, time.monotonic() + UNKILLABLE_SECONDS)
        self._keep_pidfd(execution, pidfd)

        def gone() -> None:
            self._close_lock(lock)
            os.close(directory)
            pipes.release_stdin()
            self._on_gone(execution)

        def ended() -> None:
            self.pidfds.pop(execution, None)  # the leader is reaped, and it closed
            self._family.release(execution)
            control.close()

        leader = Leader(start.pid, pidfd)
        if len(pipes.outputs) < len(Channel):  # merged, or a name was removed before we opened it
            unheld = not pipes.reopen_outputs(directory, start.pid) or unheld
        stdin = self._feed(directory, pipes)
        parts = Parts(directory, lock, leader, tree, draft, pipes.outputs, stdin, cgroup, "runner", unheld)
        supervision = Supervision(self._loop, Terms.from_json(start.supervision), parts, ended, gone)
        control = Control(self._loop, directory, supervision, self._site.trusted_uids)
        supervision.start()

    def _bury(self, remains: Remains, lock: int, draft: ExitDraft, tree: ProcessTree, why: str, until: float) -> None:
        """Nobody can know how its leader ends: kills what survives, until none is left, and says so."""
        tree.kill()  # the leader too, should it live
        if tree.members() and time.monotonic() < until:
            self._loop.call_later(RETRY_SECONDS, lambda: self._bury(remains, lock, draft, tree, why, until))
            return
        self._lose(remains, lock, draft, why)

    def _lose(self, remains: Remains, lock: int, draft: ExitDraft, why: str) -> None:
        """Record that its end is not known: nothing of it lives."""
        try:
            finish_unseen(remains.execution, draft, self._unknowable(remains, draft, why))
        except OSError:  # no room, or no descriptor
            self._loop.call_later(NO_ROOM_RETRY_SECONDS, lambda: self._lose(remains, lock, draft, why))
        else:
            self._clear(remains, lock)

    def _feed(self, directory: int, pipes: Pipes) -> StdinFeed | None:
        if not read_stdin_state(directory).open:
            pipes.release_stdin()  # its shim had no time to ask for that
        writer = pipes.open_stdin_again() if pipes.stdin >= 0 else -1
        if writer >= 0 and not os.access(STDIN_STATE, os.F_OK, dir_fd=directory):
            reserve_uncertain(directory)
        return StdinFeed(self._loop, directory, writer, pipes.release_stdin) if writer >= 0 else None

    def _unknowable(self, remains: Remains, draft: ExitDraft, why: str) -> ExitRecord:
        """The record of a command that is gone, and whose status nobody has seen."""
        start_error = draft.start_error()
        if start_error:
            return not_started(start_error.message, start_error.errno)
        if self._restarted(remains) or log_is_damaged(remains.directory):
            return lost(why, mend_log(remains.directory, None))
        log = LogWriter(remains.directory, 1, Overflow.DROP_OLDEST)
        log.close()
        return lost(why, log.produced)

    def _settle_log(self, remains: Remains) -> None:
        """The log of an ended execution, before its FIFOs go: after that nobody doubts it any more."""
        if self._restarted(remains):
            mend_log(remains.directory, read_exit(remains.directory))
        else:
            sync_log(remains.directory)

    def _clear(self, remains: Remains, lock: int) -> None:
        """The record is written just now."""
        ring(lock)
        self._close_lock(lock)
        self._discard(remains)

    def _discard(self, remains: Remains) -> None:
        """The record is written; kept leftovers may still write, and must not block."""
        execution, directory, pipes, pidfd, *_ = remains
        self.pidfds.pop(execution, None)
        self._family.release(execution)
        cgroup = Cgroup.existing(self._site.cgroup_base, execution)
        if cgroup:
            cgroup.remove()  # now that also the last orphan is reaped
        if pidfd is not None:
            os.close(pidfd)
        pipes.release_stdin()

        def gone() -> None:
            # A shim that lived to its end has removed all, standard output last.
            if os.access(FIFO_OUT, os.F_OK, dir_fd=directory):
                with suppress(OSError):  # else they stay, and the next runner tries again
                    self._settle_log(remains)
                    remove_socket(directory, CONTROL)
                    remove_fifos(directory)
            os.close(directory)
            self._on_gone(execution)

        if all(hung_up(fifo) for fifo in pipes.outputs.values()):
            pipes.close()
            gone()
        else:
            Discard(self._loop, pipes.outputs, gone)


def holds_lost_lock(directory: int) -> bool:
    """Return True when the lock has lost its name, and the shim that the start record names is alive and has it."""
    if os.access(LOCK, os.F_OK, dir_fd=directory):
        return False
    start = readable_start(directory)
    return start is not None and linux.start_ticks(start.shim_pid) == start.shim_start and alive(start.shim_pid)


def log_is_damaged(directory: int) -> bool:
    """Whether nobody can go on writing it, as what is in it is not certain any more."""
    try:
        LogWriter(directory, 1, Overflow.DROP_OLDEST).close()
    except DamagedLog:
        return True
    return False


def abandon(directory: int, record: ExitRecord) -> None:
    """Records in a directory that was just claimed that its command will never be started."""
    lock = take_lock(directory)
    if lock is None:
        return  # its shim lives
    if not is_ended(directory) and read_start(directory) is None:
        ExitDraft(directory).finish(record)
        remove_fifos(directory)
        ring(lock)
    os.close(lock)
