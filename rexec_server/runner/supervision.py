"""One command from its exec to its exit record.

Completion is the leader's exit, not the end of its output: a grandchild that keeps a channel open hangs nothing.

    RUNNING ──leader exits──▶ DRAINING ──output in, or drain time over──▶ SETTLING ──leftovers dealt with──▶ ENDED
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from rexec_server.core.launch import Launch, Leftovers, Overflow
from rexec_server.core.spool import Channel, ExitRecord, Reason, StartError
from rexec_server.runner import linux, spawn
from rexec_server.runner.cgroup import Cgroup
from rexec_server.runner.ending import Ending, ExitDraft
from rexec_server.runner.leader import Leader
from rexec_server.runner.linux import Status
from rexec_server.runner.lock import noted_floor, ring
from rexec_server.runner.log_writer import LogWriter
from rexec_server.runner.loop import READ, Loop, Timer
from rexec_server.runner.mending import sync_log
from rexec_server.runner.output import Output
from rexec_server.runner.pipes import remove_fifos
from rexec_server.runner.stdin import StdinFeed
from rexec_server.runner.tracees import let_go
from rexec_server.runner.tree import ProcessTree

# A process in an uninterruptible wait cannot be killed; the execution's end does not wait for it longer than this.
UNKILLABLE_SECONDS = 10.0
# A process that forks and exits, again and again, can be between two places whenever one look passes by.
QUIET_LOOKS = 5
_NOT_EXECUTED = Status(spawn.NOT_EXECUTED, None)
_HANGS = "it was ended before it was executed; its process hangs in the kernel, and will be dead when it comes back"
_UNSEEN = "its shim died, and a runner that was not its parent could not see its status"


class Terms(NamedTuple):
    """What was asked for, as a successor of the shim must know it. Seconds; deadline is on CLOCK_MONOTONIC."""

    deadline: float | None
    kill_grace: float
    drain_timeout: float
    unattended_timeout: float | None
    leftovers: Leftovers
    output_bytes: int
    overflow: Overflow
    waiting_timeout: float | None = None  # how long it waits for a reader while no holder is attached

    @classmethod
    def of(cls, launch: Launch) -> Terms:
        return cls(
            deadline=time.monotonic() + launch.timeout if launch.timeout is not None else None,
            kill_grace=launch.kill_grace,
            drain_timeout=launch.drain_timeout,
            unattended_timeout=launch.unattended_timeout,
            leftovers=launch.leftovers,
            output_bytes=launch.output_bytes,
            overflow=launch.overflow,
            waiting_timeout=launch.waiting_timeout if launch.unattended_timeout is None else launch.unattended_timeout,
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Terms:
        # The shim may have been of a later version, and have had terms that we cannot keep.
        known = {name: value for name, value in fields.items() if name in cls._fields}
        return cls(**known | {"leftovers": Leftovers(fields["leftovers"]), "overflow": Overflow(fields["overflow"])})

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


class Parts(NamedTuple):
    """The pieces of one supervision, put together by a shim or by the runner that takes over from one."""

    directory: int
    lock: int
    leader: Leader
    tree: ProcessTree
    draft: ExitDraft
    fifos: dict[Channel, int]
    stdin: StdinFeed | None
    cgroup: Cgroup | None
    writer: str
    unheld: bool = False  # for a while nobody held the FIFOs, so output may be lost


class Supervision:
    """Pumps output, keeps the timers, ends what must end, and writes the exit record.

    `on_end` is called when the record is true; `on_gone` when kept leftovers have let go of their channels too.
    """

    def __init__(
        self, loop: Loop, terms: Terms, parts: Parts, on_end: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._terms = terms
        self._parts = parts
        self._on_end = on_end
        self._on_gone = on_gone
        self._log = LogWriter(parts.directory, terms.output_bytes, terms.overflow)
        self._log.floor = noted_floor(parts.lock)
        self._output = Output(loop, self._log, parts.fifos, parts.lock, self._reach_output_limit)
        self._output.on_progress = self._check_drained
        self._output.on_wait = self._time_wait
        self.start_error: StartError | None = None  # why it was never executed, where that is certain
        self._hangs = False
        self._status: Status | None = None
        self._ended_at = 0
        self._exited = self._settling = self._drain_over = self._give_up = False
        self._output_complete = False
        self._leftovers = 0
        self._settle_until = 0.0
        self._ending = parts.draft.ending()
        self._signals_sent = parts.draft.signals()
        self._timers: list[Timer] = []
        self._unattended: Timer | None = None
        self._waiting: Timer | None = None
        self._kill: Timer | None = None

    def start(self) -> None:
        self._loop.watch(self._parts.leader.pidfd, READ, lambda _: self._on_leader_exit())
        if self._terms.deadline is not None:
            left = max(0.0, self._terms.deadline - time.monotonic())
            self._timers.append(self._loop.call_later(left, lambda: self.end(Reason.TIMED_OUT)))
        if self._ending:
            self._arm_kill(self._ending.kill_at)
        self.attend()

    @property
    def stdin(self) -> StdinFeed | None:
        return self._parts.stdin

    @property
    def running(self) -> bool:
        return not self._exited and self._parts.leader.status() is None

    def attend(self, holder: bool = False) -> None:
        """Note that a reader follows now: the time until the command is taken for abandoned begins anew.

        Only a holder can end a wait for readers; so only for a holder that time, too, begins anew.
        """
        if holder:
            self._time_wait()
        if self._unattended:
            self._unattended.cancel()
        if self._terms.unattended_timeout is not None and not self._exited:
            self._unattended = self._loop.call_later(
                self._terms.unattended_timeout, lambda: self.end(Reason.UNATTENDED)
            )

    def hold(self, floor: int) -> None:
        """Drop nothing from this offset on, with WAIT."""
        self._output.hold(floor)

    def _time_wait(self) -> None:
        """Run a clock while the command waits for a reader, and no holder is attached."""
        if self._waiting:
            self._waiting.cancel()
        if self._output.log_full and not self._exited and self._terms.waiting_timeout is not None:
            self._waiting = self._loop.call_later(self._terms.waiting_timeout, lambda: self.end(Reason.UNATTENDED))

    def signal(self, number: int, group: bool) -> bool:
        """Delivers a signal; False when the command has ended."""
        if not self.running:
            return False
        if number not in self._signals_sent:
            self._parts.draft.note_signal(number)
            self._signals_sent.add(number)
        if group:
            self._parts.tree.signal_group(number)
        else:
            self._parts.leader.signal(number)
        return True

    def end(self, reason: Reason, grace: float | None = None) -> None:
        """TERM now, KILL after the grace (seconds). A second call can only shorten the grace."""
        if not self.running:
            self._give_up = True  # nobody waits any longer for space on a full disk
            return self._check_drained()
        kill_at = time.monotonic() + (self._terms.kill_grace if grace is None else grace)
        if self._ending:
            self._ending = self._ending._replace(kill_at=min(kill_at, self._ending.kill_at))
        else:
            self._ending = Ending(reason, kill_at)
        self._parts.draft.note_ending(self._ending)
        self._parts.tree.signal_all(signal.SIGTERM)
        self._parts.tree.signal_all(signal.SIGCONT)  # a stopped process gets TERM only when it continues
        self._arm_kill(self._ending.kill_at)

    def lose(self) -> None:
        """Give it up: its directory is gone, and with it the place of its record. Nothing of it goes on unknown."""
        if not self._exited:
            self._ending = Ending(Reason.LOST, time.monotonic())
            self._parts.tree.kill()

    def reap_orphans(self, children: list[int]) -> None:
        """Reaps those of our children that are not the leader: orphans of the command, which became ours."""
        let_go(children)
        for pid in children:
            if pid != self._parts.leader.pid:
                linux.reap(pid)

    def _arm_kill(self, kill_at: float) -> None:
        if self._kill:
            self._kill.cancel()
        self._kill = self._loop.call_later(max(0.0, kill_at - time.monotonic()), self._kill_all)

    def _kill_all(self) -> None:
        self._parts.tree.kill()
        self._kill = self._loop.call_later(UNKILLABLE_SECONDS, self._give_up_start)

    def _give_up_start(self) -> None:
        """Give up a process that hangs in the kernel before its exec: when it comes back it dies, and runs nothing."""
        if not self._parts.tree.executed:
            self._hangs = True
            self.start_error = self.start_error or StartError("ECANCELED", _HANGS)
            self._on_leader_exit()

    def _reach_output_limit(self) -> None:
        if self.running:
            self.end(Reason.OUTPUT_LIMIT)

    def _on_leader_exit(self) -> None:
        self._exited = True
        self._ended_at = linux.now_ns()
        self._loop.unwatch(self._parts.leader.pidfd)
        self._status = self._parts.leader.status()
        self._output.owe()
        for timer in (*self._timers, self._unattended, self._waiting, self._kill):
            if timer:
                timer.cancel()
        if self._parts.stdin:
            self._parts.stdin.close()
        self._timers = [self._loop.call_later(self._terms.drain_timeout, self._on_drain_timeout)]
        self._check_drained()

    def _on_drain_timeout(self) -> None:
        self._drain_over = True
        self._check_drained()

    def _check_drained(self) -> None:
        """Goes on to the leftovers once all output is in, or the time for it is over and the command's own is in."""
        if not self._exited or self._settling:
            return
        over = self._drain_over and (self._output.settled or self._ending or self._give_up)
        if self._output.at_end or over or (self._output.limit_reached and not self._output.held):
            self._settle()

    def _settle(self) -> None:
        self._settling = True
        self._settle_until = time.monotonic() + UNKILLABLE_SECONDS
        self._output_complete = not (self._output.held or self._parts.unheld)
        self._leftovers = len(self._parts.tree.members())
        if self._terms.leftovers == Leftovers.KEEP and not self._ending:
            return self._finish(kept=True)
        self._kill_leftovers(QUIET_LOOKS if self._leftovers or self._ending else 1)

    def _kill_leftovers(self, looks: int) -> None:
        """Kills until that many looks in a row find none; each may find processes that were being born before."""
        if self._parts.tree.members() and time.monotonic() < self._settle_until:
            self._parts.tree.kill()
            looks = QUIET_LOOKS
        else:
            looks -= 1
        if looks:
            self._loop.call_later(0.001, lambda: self._kill_leftovers(looks))
        else:
            self._finish(kept=False)

    def _finish(self, kept: bool) -> None:
        if self._is_unsure() and time.monotonic() < self._settle_until:
            self._loop.call_later(0.01, lambda: self._finish(kept))
            return
        if not kept:
            self._output.drain_now()
        self._parts.draft.finish(self._record(self._output.unstored(everything=not kept)))
        self._parts.leader.reap()
        kept = kept and self._output.held
        self._on_end()
        ring(self._parts.lock)
        self._sync_log()
        remove_fifos(self._parts.directory, keep_outputs=kept)
        if self._parts.cgroup:
            self._parts.cgroup.remove()
        if kept:
            self._output.discard(self._let_go)
        else:
            self._output.close()
            self._on_gone()

    def _is_unsure(self) -> bool:
        """Tell if the way it ended may still come to be known, as when its tracer lets it go."""
        if self._status is None or self._parts.leader.usage is None:
            self._status = self._parts.leader.status() or self._status
        return self._status is None and self._parts.leader.withheld

    def _sync_log(self) -> None:
        """After the end was told, which does not wait for it; until the FIFOs are gone the log is doubted."""
        with suppress(OSError):  # the disk's trouble; what was lost is a gap then
            sync_log(self._parts.directory)

    def _let_go(self) -> None:
        """The last kept leftover has closed its output."""
        remove_fifos(self._parts.directory)
        self._on_gone()

    def _record(self, unstored: dict[Channel, int]) -> ExitRecord:
        start_error = self.start_error = self._find_start_error()
        status = None if start_error else self._status
        return ExitRecord(
            reason=self._reason(start_error),
            end_time=self._ended_at,
            stdout_bytes=self._log.produced[Channel.STDOUT] + unstored.get(Channel.STDOUT, 0),
            stderr_bytes=self._log.produced[Channel.STDERR] + unstored.get(Channel.STDERR, 0),
            output_complete=self._output_complete or start_error is not None,
            leftover_processes=self._leftovers,
            exit_code=status.exit_code if status else None,
            signal=status.signal if status else None,
            start_error=start_error,
            lost=None if status or start_error else _UNSEEN,
            usage=None if start_error else self._parts.leader.usage,
            written_by=self._parts.writer,
        )

    def _find_start_error(self) -> StartError | None:
        """Find why it certainly never ran, as its process told us, or an earlier supervisor of it."""
        error = self.start_error or self._parts.draft.start_error()
        if error is None and self._status == _NOT_EXECUTED and not self._parts.tree.executed:
            error = StartError("ECANCELED", "its process ended before it was executed")  # and its note was lost
        return error

    def _reason(self, start_error: StartError | None) -> Reason:
        if start_error:
            return self._ending.reason if self._hangs and self._ending else Reason.START_FAILED
        if self._status is None:
            return Reason.LOST
        if self._ending:
            return self._ending.reason
        if self._status.signal is None:
            return Reason.EXITED
        if self._status.signal in self._signals_sent:
            return Reason.CANCELLED
        if self._status.signal == signal.SIGKILL and self._parts.cgroup and self._parts.cgroup.out_of_memory():
            return Reason.OUT_OF_MEMORY
        return Reason.SIGNALED
