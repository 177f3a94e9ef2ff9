"""The judge: what was seen of an execution, against what it must be, and what was done to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rexec.v1 import execution_pb2 as wire

from tests.torture.command import LINE
from tests.torture.harm import Deed, Harm
from tests.torture.observation import Observation
from tests.torture.removal import DIRECTORY, removed
from tests.torture.workload import CHANNELS, End, Task

FINAL = (wire.STATE_SUCCEEDED, wire.STATE_FAILED, wire.STATE_LOST)
SCARCITY = ("full disk", "no descriptors for the runner", "no descriptors for the server", "no process ids")
# What may keep a command from being started, by the error that says so.
_HINDRANCES = {
    "ENOSPC": ("full disk",),
    "EAGAIN": ("no process ids",),
    "EMFILE": ("no descriptors for the runner",),
    "ECANCELED": ("kill server", "kill runner", "restart server", "restart runner"),
}
# How long after a deed something may still fail of it, in seconds.
AFTERMATH = 10.0
_ENDED_BY_REXEC = (wire.REASON_CANCELLED, wire.REASON_TIMED_OUT, wire.REASON_OUTPUT_LIMIT)
_REFUSED = End(wire.REASON_CANCELLED, signal=15)


@dataclass(slots=True)
class Verdict:
    """`outcome` is the column of the table; `why` explains an outcome that is not the task's own."""

    outcome: str
    why: str = ""
    faults: list[str] = field(default_factory=list)


def judge(seen: Observation, harm: Harm) -> Verdict:
    """Everything that can be said of one execution."""
    execution = seen.execution
    gone = harm.of_execution(seen.name, DIRECTORY)
    if execution is None and gone:  # the client gives up where less was produced than it has read
        return Verdict("lost", "its directory was removed", ["it was run twice"] if seen.runs > 1 else [])
    if execution is None or execution.state not in FINAL:
        return Verdict("no end", faults=[*seen.faults, *map(str, seen.troubles), "it has no end"])
    if gone:
        return _judge_removed(seen, execution)
    verdict = _judge_end(seen, execution, harm)
    verdict.faults += [
        *seen.faults,
        *_judge_runs(seen, execution),
        *_judge_bytes(seen, execution, harm),
        *_judge_last(seen, execution),
        *_judge_troubles(seen, harm),
    ]
    return verdict


def _judge_removed(seen: Observation, execution: wire.Execution) -> Verdict:
    """Judge one whose directory was removed while it lived: LOST, or its end if seen before; its output is gone."""
    faults = ["it was run twice"] if seen.runs > 1 else []
    if seen.last is not None and (seen.last.state, _end(seen.last)) != (execution.state, _end(execution)):
        faults.append(f"ended by {_end(execution)}, and now by {_end(seen.last)}")
    if execution.state == wire.STATE_LOST:
        return Verdict("lost", "its directory was removed", faults)
    if _end(execution) in (seen.task.end, _REFUSED):
        return Verdict("exact", faults=faults)
    return Verdict("wrong", faults=[*faults, f"ended by {_end(execution)}, not by {seen.task.end}"])


def _may_be_lost(seen: Observation, harm: Harm) -> str:
    """Return why its end may stay unknown; empty when it must be known."""
    if why := double_kill(seen, harm):
        return why
    if harm.of_execution(seen.name, removed("start")) and _shim_kills(seen, harm):
        return "its start record was removed, and its shim was killed"
    servers = harm.during(seen.since - AFTERMATH, seen.until, "kill server", "restart server")
    runners = harm.during(seen.since - AFTERMATH, seen.until, "kill runner", "restart runner")
    if servers and runners and not seen.runs:
        return "the server and the runner that it was reserved for were killed before it was started"
    return ""


def double_kill(seen: Observation, harm: Harm) -> str:
    """That both its shim and a runner were killed while it lived, and how far apart; empty if not."""
    shims = _shim_kills(seen, harm)
    runners = harm.during(seen.since, seen.until, "kill runner", "restart runner")
    if not (shims and runners):
        return ""
    apart = min(abs(shim.since - runner.since) for shim in shims for runner in runners)
    near = next((limit for limit in (0.1, 1.0, 10.0) if apart < limit), None)
    return f"its shim and a runner were killed within {near:g} s" if near else "its shim and a runner were killed"


def _judge_end(seen: Observation, execution: wire.Execution, harm: Harm) -> Verdict:
    if execution.state == wire.STATE_LOST:
        why = _may_be_lost(seen, harm)
        return Verdict("lost", why, [] if why else ["LOST, though not both its shim and a runner were killed"])
    if execution.reason == wire.REASON_START_FAILED and not _is_due(seen.task, execution):
        why = _kept_from_starting(seen, execution, harm)
        said = f"{execution.start_error.errno}: {execution.start_error.message}"
        return Verdict("not started", why, [] if why else [f"not started, though nothing kept it from that: {said}"])
    end = _end(execution)
    if end == seen.task.end:
        return Verdict("exact", faults=list(_judge_details(seen, execution, harm)))
    if seen.input_refused and end == _REFUSED and _shim_kills(seen, harm):
        return Verdict("input refused", "its shim was killed while input was written")
    return Verdict("wrong", faults=[f"ended by {end}, not by {seen.task.end}"])


def _is_due(task: Task, execution: wire.Execution) -> bool:
    """Whether it failed to start because its program does not exist, as it must."""
    return task.fails_to_start and execution.start_error.errno == "ENOENT"


def _end(execution: wire.Execution) -> End:
    code = execution.exit_code if execution.HasField("exit_code") else None
    return End(execution.reason, code, execution.signal if execution.HasField("signal") else None)


def _judge_details(seen: Observation, execution: wire.Execution, harm: Harm) -> Iterator[str]:
    succeeded = _end(execution) == End(wire.REASON_EXITED, exit_code=0)
    if (execution.state == wire.STATE_SUCCEEDED) != succeeded:
        yield f"{wire.State.Name(execution.state)} does not go with {_end(execution)}"
    if (
        seen.task.child
        and seen.task.end.reason == wire.REASON_EXITED
        and not execution.leftover_processes
        and not double_kill(seen, harm)
    ):
        yield "its leftover process was not counted"


def _shim_kills(seen: Observation, harm: Harm) -> list[Deed]:
    return harm.of_execution(seen.name, "kill shim")


def _kept_from_starting(seen: Observation, execution: wire.Execution, harm: Harm) -> str:
    name = execution.start_error.errno
    deeds = harm.during(seen.since - AFTERMATH, seen.until, *_HINDRANCES.get(name, ()))
    if name == "ECANCELED":
        deeds += _shim_kills(seen, harm)
    return f"{name}: {' or '.join(sorted({deed.what for deed in deeds}))}" if deeds else ""


def _judge_runs(seen: Observation, execution: wire.Execution) -> Iterator[str]:
    """A command that ended by itself has run once, one that was not started never, and none twice."""
    if seen.runs > 1:
        yield f"it was run {seen.runs} times"
    if execution.reason == wire.REASON_START_FAILED and seen.runs:
        yield "it was run, and is said not to have been started"
    if execution.reason == wire.REASON_EXITED and not seen.runs:
        yield "it is said to have exited, and was never run"


def _judge_bytes(seen: Observation, execution: wire.Execution, harm: Harm) -> Iterator[str]:
    """Complete, or an exact gap: what was read adds up, and is all that the command wrote where it wrote all."""
    if seen.reading is None:
        yield "nobody has read it"
        return
    yield from seen.reading.faults
    produced = {int(total.channel): total.bytes_produced for total in execution.totals}
    if sum(seen.reading.received.values()) + seen.reading.missing != sum(produced.values()):
        yield f"read {seen.reading.received} and {seen.reading.missing} missing, but {produced} were produced"
    if sum(produced.values()) != execution.log_end_offset:
        yield f"{produced} were produced, but the log ends at {execution.log_end_offset}"
    whole = _wrote_all(seen, execution, harm)
    for channel in CHANNELS:
        wrote, wanted = produced.get(channel, 0), seen.task.written(channel) * LINE
        if (whole and wrote != wanted) or wrote > wanted:
            yield f"{wire.Channel.Name(channel)}: {wrote} bytes, not {wanted}"  # type: ignore[arg-type]
    yield from _judge_gap(seen.task, seen, execution, harm)


def _wrote_all(seen: Observation, execution: wire.Execution, harm: Harm) -> bool:
    if seen.task.partial or seen.task.fails_to_start or seen.input_refused:
        return False
    if execution.reason == wire.REASON_START_FAILED or execution.state == wire.STATE_LOST:
        return False
    return execution.output_complete or not double_kill(seen, harm)


def _judge_gap(task: Task, seen: Observation, execution: wire.Execution, harm: Harm) -> Iterator[str]:
    """Only what overflows is dropped, no more than that; or what found no room before rexec itself ended it."""
    dropped = sum(total.bytes_dropped for total in execution.totals)
    kept = execution.log_end_offset - dropped
    no_room = execution.reason in _ENDED_BY_REXEC and harm.during(seen.since, seen.until, "full disk")
    limit = task.options.get("max_output", 1 << 62)
    if execution.reason == wire.REASON_OUTPUT_LIMIT and kept != limit and not no_room:
        yield f"{kept} bytes are kept, not as many as are allowed: {limit}"
    if dropped and not no_room and kept < min(limit * 3 // 4, execution.log_end_offset):
        yield f"{dropped} bytes were dropped without need"


def _judge_last(seen: Observation, execution: wire.Execution) -> Iterator[str]:
    """After all, through a server that has started anew, it is as it was, and so are its bytes."""
    if seen.last is None or seen.again is None:
        yield "nobody has looked at it again"
        return
    for name in ("state", "start_error", "log_start_offset", "log_end_offset", "output_complete", "pid", "create_time"):
        before, now = getattr(execution, name), getattr(seen.last, name)
        if before != now:
            yield f"{name} was {before}, and is now {now}"
    if _end(seen.last) != _end(execution):
        yield f"ended by {_end(execution)}, and now by {_end(seen.last)}"
    yield from (f"read again: {fault}" for fault in seen.again.faults)
    if sum(seen.again.received.values()) + seen.again.missing != execution.log_end_offset:
        yield f"read again: {seen.again.received} and {seen.again.missing} missing, of {execution.log_end_offset}"


def _judge_troubles(seen: Observation, harm: Harm) -> Iterator[str]:
    """A call that failed for good although the client is patient is a fault, but where something had run out."""
    for trouble in seen.troubles:
        if not harm.during(trouble.at - AFTERMATH, trouble.at, *SCARCITY):
            yield str(trouble)
