# Generated from rexec_client/_async/hold.py by scripts/gen_sync_client.py: do not edit.
"""A reader's progress, told to the server: a command with OVERFLOW_WAIT goes on when its output has been used."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from functools import partial

from rexec.v1.execution_service_pb2 import AcknowledgeRequest

from rexec_client._sync import backend
from rexec_client._sync.rpc import Rpc
from rexec_client.errors import RexecError

# Output is acknowledged after so many bytes, or seconds. Where little is kept, after this part of it: else the command
# would wait for the second.
ACK_BYTES = 4 << 20
ACK_PARTS = 8
ACK_SECONDS = 1.0

# A reader that is busy with one piece says so this often: its stream may be cut meanwhile, and it would not notice.
ALIVE_SECONDS = 20.0

# The time that leaving may take, for the last acknowledgement.
LAST_ACK_SECONDS = 2.0
RELEASE_SECONDS = 5.0


class Hold:
    """One holder of an execution's output. Acknowledging never delays the reading: one call at a time is under way.

    What was given to the application counts as used when it asks for more. A follower that resumes acknowledges the
    offset that it resumes at, so it resumes only when all that came before has been used.

    Attributes:
        name: the holder's name, the same on every connection.
    """

    def __init__(self, rpc: Rpc, exec_id: str, name: str, offset: int, kept: int) -> None:
        """Hold from `offset`, which the Follow acknowledges; `kept` is the execution's limit in bytes, or 0."""
        self.name = name
        self._step = min(ACK_BYTES, kept // ACK_PARTS) if kept else ACK_BYTES
        self._rpc = rpc
        self._exec_id = exec_id
        self._given = self._used = self._known = offset
        self._told_at = time.monotonic()
        self._told = False
        self._on = True
        self._busy = False
        self._lock = threading.RLock()  # a call that fails at once is noted within its beginning
        self._timer: backend.Timer | None = None

    def begin(self, offset: int) -> None:
        """Begin the reading at this offset, which only the server knew."""
        with self._lock:
            self._given = self._used = max(self._used, offset)

    def give(self, end: int) -> None:
        """Note that the application gets what is before `end`."""
        with self._lock:
            self._given = max(self._given, end)
            self._wake()

    def use(self, offset: int) -> None:
        """Note that the application has used up everything before `offset`."""
        with self._lock:
            self._used = max(self._used, offset)
            if self._used - self._known >= self._step:
                self._tell()

    def hurry(self) -> None:
        """Tell what is used now: the command waits."""
        with self._lock:
            if self._used > self._known:
                self._tell()

    def stop(self) -> None:
        """Tell nothing more."""
        with self._lock:
            self._on = False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def finish(self, *, ended: bool) -> None:
        """Tell the last of it, unless the server knows it, and stop. A short output that has ended needs no call."""
        if not self._on:
            return
        self.stop()
        if self._used > self._known and (self._told or not ended):
            with contextlib.suppress(RexecError):  # then more is held than would have to be
                self._acknowledge(LAST_ACK_SECONDS)

    def release(self) -> None:
        """Leave for good: without another holder the command no longer waits. Raises CallError."""
        self.stop()
        if self._busy:  # were it served after this one, it would hold anew
            backend.settle(self._call, LAST_ACK_SECONDS)
        self._acknowledge(RELEASE_SECONDS, release=True)

    def _acknowledge(self, timeout: float, *, release: bool = False) -> None:
        request = AcknowledgeRequest(exec_id=self._exec_id, holder=self.name, offset=self._used, release=release)
        self._rpc.call(self._rpc.stub.Acknowledge, request, timeout=timeout)

    def _wake(self) -> None:
        if self._on and self._timer is None:
            # Weakly: a reader that was dropped without being closed holds nothing any more.
            self._timer = backend.call_later(ACK_SECONDS, partial(_tick, weakref.ref(self)))

    def tick(self) -> None:
        """Tell the server each second, as long as it does not know of something that is used."""
        with self._lock:
            self._timer = None
            if not self._on:
                return
            if self._used > self._known or time.monotonic() - self._told_at >= ALIVE_SECONDS:
                self._tell()
            if self._given > self._known:
                self._wake()

    def _tell(self) -> None:
        if self._busy or not self._on:
            return
        request = AcknowledgeRequest(exec_id=self._exec_id, holder=self.name, offset=self._used)
        self._busy = self._told = True
        self._told_at = time.monotonic()
        try:
            self._call = self._rpc.begin(self._rpc.stub.Acknowledge, request, done=partial(self._noted, request.offset))
        except (RexecError, ValueError):  # no credential; a closed channel
            self._busy = False

    def _noted(self, offset: int, succeeded: bool) -> None:
        with self._lock:
            self._busy = False
            if succeeded:
                self._known = max(self._known, offset)


def _tick(hold: weakref.ref[Hold]) -> None:
    if (reader := hold()) is not None:
        reader.tick()
