"""A caller: asks for an execution, follows it, does to it what the task says, and notes what it saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from rexec_client import CallError, Client, ExecutionHandle, PreconditionError, RexecError, StdinClosedError
from rexec_client.status import is_unanswered
from tests.torture.observation import Observation, Trouble
from tests.torture.plant import TAG, Plant
from tests.torture.reading import Reading
from tests.torture.workload import Task

# A whole execution, however much is done to it.
TASK_SECONDS = 180.0
RETRY_SECONDS = 0.1
_RETRIED_BY_CLIENT = frozenset({"Exec", "Follow", "WriteStdin"})

T = TypeVar("T")


class Caller:
    """Does one task after the other. It has two connections, for tasks that are asked for twice."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._client, self._second = plant.client(), plant.client()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="caller")
        self._never = threading.Event()

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()
        self._second.close()

    def run(self, task: Task, on_start: Callable[[Task], None]) -> Observation:
        seen = Observation(task)
        try:
            second = self._pool.submit(self._start, self._second, seen) if task.twice else None
            handle = self._start(self._client, seen)
            if second:
                _compare(seen, handle, second.result())
            on_start(task)
            writing = self._pool.submit(self._write, handle, seen) if task.input_lines else None
            self._attend(handle, seen)
            if writing:
                writing.result()
        except RexecError as error:
            seen.faults.append(f"given up: {type(error).__name__}: {error}")
        seen.until = time.monotonic()
        return seen

    def _start(self, client: Client, seen: Observation) -> ExecutionHandle:
        task = seen.task
        options: Any = {"exec_id": task.exec_id, "env": {TAG: self._plant.tag}, "cwd": "/", **task.options}
        arguments = task.arguments(str(self._plant.witnesses / task.exec_id))
        stdin = bool(task.input_lines)
        return self._insist(seen, "Exec", lambda: client.start(arguments, stdin=stdin, **options))

    def _attend(self, handle: ExecutionHandle, seen: Observation) -> None:
        """Follows it to its end, as often as that takes, and acts when its time has come."""
        seen.reading = Reading(seen.task)
        until = time.monotonic() + TASK_SECONDS
        offset = 0
        while seen.execution is None:
            with handle.output(since=offset, gaps=True) as stream:
                too_long = RexecError(f"it has not ended within {TASK_SECONDS:g} s")
                watchdog = threading.Timer(max(0.0, until - time.monotonic()), stream.abort, [too_long])
                watchdog.start()
                try:
                    for piece in stream:
                        seen.reading.take(piece)
                        offset = piece.end
                        self._act_if_due(handle, seen)
                    seen.execution = stream.execution
                except CallError as error:
                    self._note(seen, "Follow", error)
                    if time.monotonic() > until:
                        raise
                    self._never.wait(RETRY_SECONDS)
                finally:
                    watchdog.cancel()
                    watchdog.join()
        seen.reading.finish(seen.execution)

    def _act_if_due(self, handle: ExecutionHandle, seen: Observation) -> None:
        if seen.acted or not (seen.task.act and seen.reading and seen.reading.has_all):
            return
        seen.acted = True
        if seen.task.act == "cancel":
            self._insist(seen, "Cancel", handle.cancel)
            return
        with suppress(PreconditionError):  # it has ended: the call before this one got there without an answer
            self._insist(seen, "Signal", handle.terminate)

    def _write(self, handle: ExecutionHandle, seen: Observation) -> None:
        """All of the input. When it is refused, the command would wait for the rest for ever: it is cancelled."""
        try:
            self._insist(seen, "WriteStdin", lambda: handle.write(seen.task.input()))
            self._insist(seen, "WriteStdin", handle.close_stdin)
        except StdinClosedError:
            seen.input_refused = True
            self._insist(seen, "Cancel", handle.cancel)

    def _insist(self, seen: Observation, name: str, call: Callable[[], T]) -> T:
        """Again, for as long as an answer does not come. What the client should have tried again itself is noted."""
        until = time.monotonic() + TASK_SECONDS
        while True:
            try:
                return call()
            except PreconditionError:
                raise
            except CallError as error:
                if name in _RETRIED_BY_CLIENT or not is_unanswered(error):
                    self._note(seen, name, error)
                if time.monotonic() > until:
                    raise
                self._never.wait(RETRY_SECONDS)

    def _note(self, seen: Observation, name: str, error: CallError) -> None:
        seen.troubles.append(Trouble(name, error.code, str(error), time.monotonic()))


def _compare(seen: Observation, first: ExecutionHandle, second: ExecutionHandle) -> None:
    if not (first.already_existed or second.already_existed):
        seen.faults.append("two callers were both told that they had started it")
    if first.execution.create_time != second.execution.create_time:
        seen.faults.append("two callers who asked for one execution got two")
