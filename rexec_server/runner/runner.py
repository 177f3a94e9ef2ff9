"""The runner: the one parent of all shims. It forks them, and takes over what they leave when they die.

It may be killed and restarted at any time: live shims go on, and the next runner finds them in the spool. It becomes
another version of itself without even that: see `handover.py`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass

from rexec_server import notify
from rexec_server.core import pid_file
from rexec_server.core.about import About
from rexec_server.core.launch import Launch
from rexec_server.core.spool import FIFO_IN, RUNNER_PID, RUNNER_SOCKET, SPOOL, Channel, ExitRecord, read_stdin_state
from rexec_server.runner.claims import claim, claim_for_good, is_claimed, is_hidden, is_settled, open_directory
from rexec_server.runner.estate import Estate, Execution, Standing
from rexec_server.runner.family import Family
from rexec_server.runner.handover import Handover
from rexec_server.runner.loop import READ, Loop
from rexec_server.runner.peers import Peers
from rexec_server.runner.pipes import Pipes
from rexec_server.runner.receipts import Receipts
from rexec_server.runner.records import is_ended, is_named, lost, not_started, readable_start
from rexec_server.runner.reserve import Reserve
from rexec_server.runner.shim import Order, Site, errno_name, run_shim
from rexec_server.runner.takeover import RESTARTED, Remains, Takeover, abandon
from rexec_server.runner.upgrade import Upgrade
from rexec_server.runner.vanished import Undertaker
from rexec_server.runner.wire import HEADER, Connection, Message, is_socket, listen

_log = logging.getLogger("rexec.runner")

REAP_RETRY_SECONDS = 0.1
FIND_RETRY_SECONDS = 5.0
# The interval of looks whether what was in a spool that is gone is settled.
MAKE_WAY_SECONDS = 0.2
# An upgrade waits for a start no longer than this once its command is on record: it may hang before its exec.
SLOW_START_SECONDS = 2.0


@dataclass
class _Start:
    """A request to start that has no answer yet."""

    connection: Connection
    number: int | None
    execution: str
    waited_since: float | None = None  # by an upgrade, on CLOCK_MONOTONIC


class Runner:
    """Answers the server on its socket, forks shims, reaps them.

    idle_exit: seconds without a server and without an execution after which it exits by itself; None: never.
    left: by the version that this process was before.
    """

    def __init__(self, standing: Standing, site: Site, idle_exit: float | None, left: Handover | None) -> None:
        self._standing = standing
        self._site = site
        self._idle_exit = idle_exit
        self._left = left
        self._loop = Loop(Reserve())
        self._spool = open_directory(SPOOL, standing.state_dir)
        self._starting: dict[socket.socket, _Start] = {}  # by the socket on which its shim will report
        self._executions: dict[str, Execution] = {}
        self._older = set(left.older if left else ())  # from an earlier boot, and not settled yet
        known = (left.shims, left.leaders, left.orphans) if left else ({}, {}, {})
        self._family = Family(*known, self._leader_left_by)
        self._receipts = Receipts(left.instance, left.received) if left else Receipts()
        self._undertaker = Undertaker(self._loop, self._spool, site.cgroup_base, self._family)
        self._takeover = Takeover(self._loop, site, self._family, self._undertaker, self._forget)
        listener = socket.socket(fileno=left.listener) if left else listen(standing.state_dir, RUNNER_SOCKET)
        self._peers = Peers(self._loop, listener, site.trusted_uids, self._answer)
        self._estate = Estate(
            standing,
            site,
            self._peers,
            self._family,
            self._takeover,
            self._executions,
            self._older,
            self._receipts,
        )
        self._upgrade = Upgrade(self._loop, self._estate, self._is_quiet)
        self._after_boot = About.read(self._spool).boot_id != site.boot_id
        self._scanned = False

    def run(self) -> None:
        self._peers.listen()
        self._loop.on_child(self._reap)
        self._upgrade.listen()
        with suppress(OSError):  # no descriptor is left: removed names stay so
            self._loop.names.watch(self._standing.state_dir, self._restore_names)
        self._restore_names()  # removed while a predecessor of ours in this process had no time
        # Listening comes before looking: a shim whose input ends meanwhile can tell us.
        known = self._go_on(self._left) if self._left else frozenset()
        for name in set(os.listdir(self._spool)) - known:
            self._look_at(name)
        self._scanned = True
        self._reap()  # nobody told us of those who died before
        self._note_boot()
        _log.info("ready", extra={"pid": os.getpid(), "executions": len(self._executions)})
        notify.ready()
        if self._idle_exit is not None:
            self._loop.call_later(self._idle_exit, self._exit_if_idle)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not by an exception, which Python swallows where it comes in one of its own callbacks, at a fork say.
            self._loop.on_signal(number, self._loop.stop)
        self._loop.run()

    # --- requests ---

    def _answer(self, connection: Connection, request: Message) -> None:
        try:
            answer = self._do(connection, request)
        except OSError as error:  # a full disk, say: the request's failure, not ours
            answer = {"error": str(error)}
        if answer is not None:
            connection.send({"number": request.get("number"), **answer})

    def _do(self, connection: Connection, request: Message) -> Message | None:
        """The answer to a request, or None when there is none, or not yet."""
        match request["op"]:
            case "start":
                return self._start(connection, request)
            case "abandon":
                return self._abandon(connection, request)
            case "executions":
                return {"names": list(self._executions)}
            case "remove":
                shutil.rmtree(request["id"], ignore_errors=True, dir_fd=self._spool)
            case "stdin_eof":
                if request["id"] in self._executions:
                    self._executions[request["id"]].pipes.release_stdin()
                return None
            case "info":
                return self._estate.describe()
            case "upgrade":
                self._upgrade.ask(connection, request)
                return None
            case unknown:
                return {"error": f"unknown request {unknown!r}"}
        return {}

    def _abandon(self, connection: Connection, request: Message) -> Message | None:
        """Sees to an execution that shows no sign of life: what its records do not say, only a lost start could."""
        name = request["id"]
        if self._has_spool() and is_claimed(self._spool, name):
            if name not in self._executions:
                self._look_at(name, doubted=True)
            return {}
        # A server that is older than this question does not say which runner it reserved it for.
        never = self._receipts.never_came(name, request.get("runner", "")) and not request["older_boot"]
        self._receipts.note(name)
        if never:
            self._claim_for_good(name, not_started(request["why"]))
            return {}
        if request["older_boot"]:
            self._claim_for_good(name, lost(RESTARTED))
            return {}
        directory = self._executions[name].directory if name in self._executions else None
        produced = dict(zip(Channel, request.get("produced", (0, 0)), strict=True))
        record = lost("its directory in the spool is missing", produced)
        self._undertaker.end(name, directory, lambda: self._bury(connection, request, record))
        return None

    def _has_spool(self) -> bool:
        return is_named(SPOOL, self._standing.state_dir, self._spool)

    def _claim_for_good(self, name: str, record: ExitRecord) -> None:
        """Records an end without a start. OSError; in a spool that was moved away no server would see it."""
        if not self._has_spool():
            raise FileNotFoundError(errno.ENOENT, "the spool was removed or moved away")
        claim_for_good(self._spool, name, record)

    def _bury(self, connection: Connection, request: Message, record: ExitRecord) -> None:
        answer: Message = {"number": request.get("number")}
        try:
            self._claim_for_good(request["id"], record)
        except OSError as error:  # a full disk, say: the server asks again
            answer["error"] = str(error)
        connection.send(answer)

    def _start(self, connection: Connection, request: Message) -> Message | None:
        """Claims the execution's directory and forks its shim, which answers when the command's exec is decided."""
        name = request["id"]
        if not self._receipts.note(name):
            return {"claimed": True}
        answer = self._begin(connection, request, name)
        if answer and "start_error" in answer:
            self._receipts.withdraw(name)
        return answer

    def _begin(self, connection: Connection, request: Message, name: str) -> Message | None:
        reserved = request.get("reserved", {})  # an older server does not say it
        if self._loop.scarce:
            return {"start_error": ["EMFILE", "rexec-runner has no file descriptors left for another execution"]}
        try:
            launch = Launch.from_json(request["launch"])
        except ValueError as error:  # of another version; nothing is started otherwise than it was asked for
            return {"start_error": ["ENOTSUP", f"rexec-runner {self._standing.version} cannot start this: {error}"]}
        try:
            report, shims_report = socket.socketpair()  # before the claim, which is not taken back
        except OSError as error:
            return {"start_error": [errno_name(error), f"could not prepare the start: {error.strerror}"]}
        with shims_report:
            try:
                execution = self._executions[name] = claim(self._spool, name, launch, reserved)
            except FileExistsError:
                report.close()
                return {"claimed": True}
            except OSError as error:
                report.close()
                return {"start_error": [errno_name(error), f"could not make its spool: {error.strerror}"]}
            order = Order(name, execution.directory, launch, execution.pipes, shims_report.fileno(), reserved)
            try:
                pid = os.fork()
            except OSError as error:
                report.close()
                return self._not_forked(name, execution, error)
            if pid == 0:
                run_shim(order, self._site)
        self._family.shims[pid] = name
        self._starting[report] = _Start(connection, request.get("number"), name)
        self._loop.watch(report.fileno(), READ, lambda _: self._pass_on(report, report.recv(65536)))
        return None

    def _not_forked(self, name: str, execution: Execution, error: OSError) -> Message:
        start_error = [errno_name(error), f"could not fork: {error.strerror}"]
        _log.error("cannot fork a shim", extra={"execution": name, "error": start_error[0]})
        abandon(execution.directory, not_started(start_error[1], start_error[0]))
        execution.pipes.close()
        os.close(execution.directory)
        del self._executions[name]
        return {"start_error": start_error}

    def _pass_on(self, report: socket.socket, data: bytes) -> None:
        """What the shim says of the start; nothing when it died, or gave way: then the spool says it."""
        start = self._starting.pop(report)
        self._loop.unwatch(report.fileno())
        report.close()
        execution = self._executions.get(start.execution)
        if execution and execution.pipes.stdin >= 0:
            execution.pipes.hold_stdin(execution.directory)
        said = json.loads(data[HEADER.size :]) if data else {}
        start.connection.send({"number": start.number, "instance": self._receipts.instance, **said})

    # --- what lives and dies ---

    def _look_at(self, name: str, *, doubted: bool = False) -> None:
        """What cannot be read, or looked at just now, is one execution's trouble; the others are not to wait for it."""
        try:
            self._find(name, doubted)
        except OSError as error:
            _log.error("cannot look at an execution", extra={"execution": name, "why": str(error)})
            if self._after_boot:
                self._older.add(name)  # so that nobody takes it for settled
            execution = self._executions.pop(name, None)
            if execution:
                execution.pipes.close()
                os.close(execution.directory)
            self._loop.call_later(FIND_RETRY_SECONDS, lambda: self._look_at(name))
        else:
            if name not in self._executions:
                self._older.discard(name)
            self._note_boot()

    def _find(self, name: str, doubted: bool) -> None:
        """Looks at an execution from before our time. doubted: its exit record may not be a valid record."""
        if is_hidden(name) or (not self._after_boot and not doubted and is_settled(self._spool, name)):
            return  # not an execution yet, or all is done
        try:
            directory = open_directory(name, self._spool)
        except (NotADirectoryError, FileNotFoundError):
            return  # somebody else's file, or just removed
        execution = self._executions[name] = Execution(directory, Pipes({}))
        execution.pipes = pipes = Pipes.open_outputs(directory)
        if is_ended(directory) and not pipes.outputs:
            os.close(directory)
            del self._executions[name]
            return
        if os.access(FIFO_IN, os.F_OK, dir_fd=directory) and read_stdin_state(directory).open:
            pipes.hold_stdin(directory)
        if self._after_boot:
            self._older.add(name)
        self._takeover.find(Remains(name, directory, pipes, older_boot=self._after_boot))

    def _note_boot(self) -> None:
        """Writes down, once, that nothing in the spool is from an earlier boot any more."""
        if self._after_boot and self._scanned and not self._older:
            with suppress(OSError):  # a full disk: then the next runner has more doubts than it need have
                About(boot_id=self._site.boot_id).write(self._spool)
                self._after_boot = False

    def _reap(self) -> None:
        try:
            dead = self._family.reap()
        except OSError:  # no descriptor is left to look with, say
            self._loop.call_later(REAP_RETRY_SECONDS, self._reap)
            return
        for name in dead:
            execution = self._executions[name]
            with suppress(OSError):  # the takeover finds that out
                if not is_ended(execution.directory):
                    _log.warning("a shim died; taking over", extra={"execution": name})
            self._takeover.take(Remains(name, execution.directory, execution.pipes))

    def _leader_left_by(self, name: str) -> int | None:
        """The leader whose status the dead shim of an execution has not recorded."""
        directory = self._executions[name].directory
        start = None if is_ended(directory) else readable_start(directory)
        return start.pid if start else None

    def _forget(self, name: str) -> None:
        """Nothing is left to be done for it; the takeover has closed what was open."""
        del self._executions[name]
        self._older.discard(name)
        self._note_boot()

    # --- from version to version ---

    def _is_quiet(self) -> bool:
        for report, start in list(self._starting.items()):
            execution = self._executions.get(start.execution)
            start.waited_since = start.waited_since or time.monotonic()
            slow = time.monotonic() - start.waited_since > SLOW_START_SECONDS
            if slow and execution and readable_start(execution.directory):
                self._pass_on(report, b"")  # it may hang before its exec; its shim, and the spool, have all there is
        return not self._starting and not self._undertaker.busy and self._peers.quiet

    def _go_on(self, left: Handover) -> Set[str]:
        """Takes up what our predecessor in this process had. Returns its executions."""
        connections = self._peers.take_up(left.connections)
        for fd, number in left.owed:
            connections[fd].send({"number": number, **self._estate.describe()})
        for name, held in left.executions.items():
            execution = self._executions[name] = Execution.of(held)
            if name not in left.shims.values():  # else it has its shim, whose death we shall hear of
                pidfd = held.pidfd if held.pidfd >= 0 else None
                remains = Remains(name, held.directory, execution.pipes, pidfd, name in self._older)
                self._takeover.find(remains, held=True)
        return left.executions.keys()

    def _restore_names(self) -> None:
        """Makes what is removed under us anew: who comes later finds us by these names."""
        state_dir, lock = self._standing.state_dir, self._standing.lock
        if not self._has_spool():
            _log.error("the spool was removed; another runner makes a new one when this one has nothing left")
            return self._make_way()
        try:
            pid_file.restore(RUNNER_PID, lock, state_dir)
            if not is_socket(state_dir, RUNNER_SOCKET):
                self._peers.replace_listener(listen(state_dir, RUNNER_SOCKET))
                _log.warning("%s was removed; listening there again", RUNNER_SOCKET)
        except (pid_file.Held, OSError) as error:
            _log.warning("cannot make a removed name anew: %s", error)
            self._loop.call_later(FIND_RETRY_SECONDS, self._restore_names)

    def _make_way(self) -> None:
        """Ends this runner when what was in its spool is settled: the next one makes the spool anew."""
        if self._executions:
            self._loop.call_later(MAKE_WAY_SECONDS, self._make_way)
        else:
            self._loop.stop()

    def _exit_if_idle(self) -> None:
        if not self._peers and not self._executions:
            self._loop.stop()
        elif self._idle_exit is not None:
            self._loop.call_later(self._idle_exit, self._exit_if_idle)
