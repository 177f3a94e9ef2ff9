"""One execution in the server's memory: its newest facts, its log, and who waits for it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from rexec_server.core.executed import has_executed
from rexec_server.core.execution import Execution, Extent, Key, State, final_state
from rexec_server.core.holding import Holding
from rexec_server.core.log import LogReader, Reading
from rexec_server.core.record import Record
from rexec_server.core.slices import Steps, sliced
from rexec_server.core.spool import (
    EXIT,
    FLOOR_FORMAT,
    FLOOR_POSITION,
    LOCK,
    START,
    STDIN_STATE,
    Channel,
    ExitRecord,
    NotRegular,
    StartRecord,
    StdinState,
    Waiting,
    read_file,
)
from rexec_server.core.stdin_writers import written_by

# A wake-up that does not come is a defect; who waits looks all the same.
_LOOK_SECONDS = 60.0
# Of one entry between two wakes, so that this costs little memory: one at the end, and a few that lead there.
_SHARED_READINGS = 4
_SHARED_BYTES = 16 * 1024


class Entry:
    """An execution that is live, or was looked at lately."""

    def __init__(self, record: Record, directory: str) -> None:
        self.name = record.name
        self.directory = directory
        self.log = LogReader(directory)
        self.followers = 0
        self.unattended_timeout: float | None = None
        self.waiting_timeout: float | None = None  # as in force: how long it waits without a holder
        self._holding: Holding | None = None
        self.decided = asyncio.Event()  # whether the command runs, or could not be started, is known
        self.end_watch: int | None = None
        self.output_watch: int | None = None
        self.watchers = 0
        self._woken_at = (-1, Waiting.NOTHING)  # the log's end, and why it waited, when waiters were last woken
        self._told = Extent()  # the newest that callers may have been told of
        self._start_noted = False  # its start record was read
        self.counted_at_end = False  # its end was seen, and is told when its log was gone through
        self.boot_id = record.boot_id
        self._runner = record.runner
        self.settling = False  # its end is being made certain
        self._execution = record.execution
        # The spool is the truth about output: it may have lost some since the index was told.
        self._extent_known = record.execution.exit is None
        self._waiting: set[asyncio.Future[None]] = set()
        self._readings: dict[tuple[int, tuple[Channel, ...]], Reading] = {}

    @property
    def key(self) -> Key:
        return self._execution.key

    @property
    def ended(self) -> bool:
        return self._execution.state.final

    @property
    def meant_for(self) -> str:
        """The runner that alone could say that its start never came; empty when it was started, or none is known."""
        return self._runner if self._execution.state == State.STARTING else ""

    @property
    def execution(self) -> Execution:
        """What does not change while it runs; `snapshot` has the rest."""
        return self._execution

    def snapshot(self) -> Execution:
        """Everything, as it is now."""
        extent = self.extent()
        seen = replace(self._execution, extent=extent, stdin=self._stdin(), followers=self.followers)
        if self.ended:
            return replace(seen, held_offset=extent.start) if seen.request.waits else seen
        waiting, floor = self._supervisors_word()
        floor = self._holding.floor if self._holding else floor
        held = min(max(floor, extent.start), extent.end) if seen.request.waits else 0
        return replace(seen, waiting=waiting, waiting_message=self._why(waiting, extent, held), held_offset=held)

    async def caught_up(self) -> None:
        """Return when all that is in the log was gone through: after that, what is asked of it is quick."""
        await sliced(self.catch_up())

    def catch_up(self) -> Steps[None]:
        """Do as `caught_up`, in steps."""
        if not (self.ended and self._extent_known):
            yield from self.log.catch_up()

    def shown(self) -> Execution:
        """For a list: one whose files cannot be read is shown as it was last seen, and the others beside it."""
        try:
            return self.snapshot()
        except OSError:
            return self._execution

    @property
    def waits_for_reader(self) -> bool:
        """True when the command makes no progress until output of it was used up."""
        return self._execution.request.waits and not self.ended and self._supervisors_word()[0] == Waiting.READER

    def hold(self) -> Holding:
        """Return its holders. A server that has just come knows none, and the floor from the supervisor."""
        if self._holding is None:
            _, floor = self._supervisors_word()
            self._holding = Holding(floor, told=floor)
        return self._holding

    async def decide(self) -> None:
        """Returns when the spool says that it runs, or how it ended."""
        while self._execution.state == State.STARTING:
            await self.changed(_LOOK_SECONDS)
        self.decided.set()

    def extent(self) -> Extent:
        if not self.ended:
            return self._extent_so_far()
        if not self._extent_known:
            self._execution = replace(self._execution, extent=self.log.extent(self._execution.exit))
            self._extent_known = True
        return self._execution.extent

    def _extent_so_far(self) -> Extent:
        """Return the extent so far: what callers were told of was produced, also when its files are gone."""
        found = self.log.extent()
        if found.end < self._told.end:
            return Extent(self._told.end, self._told.end, self._told.produced, self._told.produced)
        self._told = found
        return found

    @property
    def end_offset(self) -> int | None:
        """The log's final end, once it is known."""
        return self.extent().end if self.ended else None

    def note_start(self) -> bool:
        """Reads who runs, if that is there and new."""
        if self._start_noted and self._execution.state != State.STARTING:
            return False
        try:
            data = read_file(f"{self.directory}/{START}")
            if not data:
                return False
            record = StartRecord.from_bytes(data)
        except ValueError:
            return False  # damaged by a power cut; the runner makes it LOST
        self._start_noted = True
        self.unattended_timeout = record.supervision["unattended_timeout"]
        self.waiting_timeout = record.supervision.get("waiting_timeout")
        if self._execution.state != State.STARTING or not has_executed(record.pid, record.pid_start):
            return False
        self._execution = replace(self._execution, state=State.RUNNING, pid=record.pid, start_time=record.start_time)
        return True

    def note_supervised(self) -> None:
        """Note that it is supervised: it runs, although its start record is gone. An empty one is yet to be written."""
        if self._execution.state == State.STARTING and not os.path.exists(f"{self.directory}/{START}"):
            self._execution = replace(self._execution, state=State.RUNNING)

    def read_exit(self) -> ExitRecord | None:
        """How it ended. None: it has not, or the record is damaged, and the runner replaces it."""
        try:
            return ExitRecord.from_bytes(read_file(f"{self.directory}/{EXIT}") or b"")
        except ValueError:
            return None

    def settle(self, record: ExitRecord) -> None:
        """The end is known: from now on nothing changes."""
        self.note_start()
        started = record.start_error is None
        self._execution = replace(
            self._execution,
            state=final_state(record),
            exit=record,
            extent=self.log.extent(record),
            pid=self._execution.pid if started else 0,
            start_time=self._execution.start_time if started else 0,
            expire_time=self.expire_time(record),
        )

    def expire_time(self, record: ExitRecord) -> int:
        return record.end_time + int(self._execution.request.retention * 1e9)

    def read(self, offset: int, max_bytes: int, channels: tuple[Channel, ...]) -> Reading:
        """As `log.read`, for those who watch: what one has read since the last wake, the others need not read.

        What was written after that is not in it; there is a wake to come for it, as long as somebody watches.
        """
        key = (offset, channels)
        reading = self._readings.get(key)
        if reading is None or reading.next_offset - offset > max_bytes:
            reading = self.log.read(offset, max_bytes, channels, self.end_offset)
            size = reading.next_offset - offset
            # If it was not cut by max_bytes, it is the same for every larger one.
            if len(self._readings) < _SHARED_READINGS and size <= _SHARED_BYTES and size < max_bytes:
                self._readings[key] = reading
        return reading

    def forget_readings(self) -> None:
        self._readings.clear()

    def wake(self) -> None:
        """Something has changed: whoever waits looks again."""
        self.forget_readings()
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def wake_if_changed(self) -> None:
        """Wakes only for what is new: a look each second must not wake ten thousand idle followers."""
        if not self._waiting:  # who reads comes back by itself: streams whose readers are slow cost nothing
            self.forget_readings()
            return
        waiting = self._supervisors_word()[0] if self._execution.request.waits else Waiting.NOTHING
        found = (self.extent().end, waiting)
        if found != self._woken_at:
            self._woken_at = found
            self.wake()

    async def changed(self, timeout: float) -> None:
        """Returns at the next `wake`, or after `timeout` seconds.

        There is no await between a caller's look and the wait beginning, so no wake is missed.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = loop.call_later(timeout, _resolve, future)
        self._waiting.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.discard(future)

    def _supervisors_word(self) -> tuple[Waiting, int]:
        """Return why it waits, and the floor, as the lock file says."""
        data = self._read_or_nothing(LOCK)
        noted = data[FLOOR_POSITION : FLOOR_POSITION + FLOOR_FORMAT.size]
        floor = FLOOR_FORMAT.unpack(noted)[0] if len(noted) == FLOOR_FORMAT.size else 0
        try:
            return Waiting(data[:1]), floor
        except ValueError:  # not there yet, or a later version's word
            return Waiting.NOTHING, floor

    def _read_or_nothing(self, name: str) -> bytes:
        try:
            return read_file(f"{self.directory}/{name}") or b""
        except NotRegular:
            return b""  # as one that was cut

    def _why(self, waiting: Waiting, extent: Extent, held: int) -> str:
        match waiting:
            case Waiting.DISK:
                return "the disk is full: output waits in the pipe, and the command with it"
            case Waiting.DISK_AT_END:
                return "the command has exited, and its last output waits for space on the disk; Cancel gives it up"
            case Waiting.READER:
                full = f"the log is full ({extent.kept_bytes} of {self._execution.request.output_bytes} bytes)"
                if self._holding and self._holding.attached:
                    return f"{full}: a holder has not read the output from offset {held} on"
                left = f"{full}: no holder is attached, and the output from offset {held} on is kept for one"
                if self.waiting_timeout is None:
                    return left
                return f"{left}; the command is ended after {self.waiting_timeout:g} s of waiting"
        return ""

    def stdin_written(self, writer: bytes) -> int:
        """Return how much this writer has written of its standard input."""
        return written_by(self._read_or_nothing(STDIN_STATE), writer)

    def _stdin(self) -> StdinState:
        request = self._execution.request
        if not request.stdin_open:
            return StdinState(written=request.stdin_bytes, open=0)
        state = StdinState.from_bytes(self._read_or_nothing(STDIN_STATE))
        return state._replace(open=0) if self.ended else state


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
