"""The judge sees faults: each that the torture looks for is shown to it, and must be found."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from rexec.v1 import execution_pb2 as wire

from rexec_client import Channel, Gap, OutputChunk
from tests.torture.command import LINE
from tests.torture.harm import Harm
from tests.torture.observation import Observation, Trouble
from tests.torture.reading import Reading
from tests.torture.verdict import Verdict, judge
from tests.torture.workload import CAP, End, Task

TASK = Task(7, "quick", End(wire.REASON_EXITED, exit_code=3), ((1, 0, 5, 0.0), (2, 0, 2, 0.0)))
NAME = "0123456789abcdef"
Change = Callable[[Observation], object]


def output(task: Task) -> list[OutputChunk]:
    """What the command writes, as a follower gets it."""
    offset, chunks = 0, []
    for channel, first, count, _ in task.steps:
        data = task.expected(channel, first * LINE, count * LINE)
        chunks.append(OutputChunk(Channel(channel), offset, data))
        offset += len(data)
    return chunks


def execution(task: Task = TASK) -> wire.Execution:
    """As it ends when nothing goes wrong."""
    sizes = {channel: task.written(channel) * LINE for channel in (1, 2)}
    ended = wire.Execution(
        exec_id=task.exec_id,
        state=wire.STATE_FAILED,
        reason=task.end.reason,  # type: ignore[arg-type]
        log_end_offset=sum(sizes.values()),
        totals=[wire.ChannelTotal(channel=channel, bytes_produced=size) for channel, size in sizes.items()],  # type: ignore[arg-type]
        output_complete=True,
        pid=4711,
    )
    if task.end.exit_code is not None:
        ended.exit_code = task.end.exit_code
    return ended


def observation(task: Task = TASK, pieces: list[OutputChunk | Gap] | None = None) -> Observation:
    """Of an execution with which all is well, unless `pieces` are other output than its own."""
    now = time.monotonic()
    seen = Observation(task, since=now - 10, until=now, execution=execution(task), last=execution(task))
    seen.reading, seen.again = Reading(task), Reading(task)
    for reading in (seen.reading, seen.again):
        for piece in output(task) if pieces is None else pieces:
            reading.take(piece)
        reading.finish(execution(task))
    seen.runs, seen.name = 1, NAME
    return seen


def verdict(change: Change = lambda _: None, harm: Harm | None = None) -> Verdict:
    seen = observation()
    change(seen)
    return judge(seen, harm or Harm())


def lose(seen: Observation) -> None:
    for one in (seen.execution, seen.last):
        assert one is not None
        one.ClearField("exit_status")
        one.state, one.reason, one.output_complete = wire.STATE_LOST, wire.REASON_LOST, False


def harmed(*deeds: tuple[str, str, float]) -> Harm:
    """What was done, to which execution, and how long ago (seconds)."""
    harm = Harm()
    for what, to_whom, ago in deeds:
        deed = harm.add(what, execution=to_whom)
        deed.since = deed.until = deed.since - ago
    return harm


def test_all_is_well() -> None:
    """What is as it must be has no fault."""
    assert verdict() == Verdict("exact")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda seen: seen.execution.__setattr__("exit_code", 4), "exit code 4, not by"),
        (lambda seen: seen.execution.__setattr__("signal", 9), "signal 9, not by"),
        (lambda seen: seen.execution.__setattr__("reason", wire.REASON_CANCELLED), "REASON_CANCELLED"),
        (lambda seen: seen.execution.__setattr__("state", wire.STATE_SUCCEEDED), "does not go with"),
        (lambda seen: seen.execution.__setattr__("state", wire.STATE_RUNNING), "no end"),
        (lambda seen: seen.__setattr__("runs", 2), "run 2 times"),
        (lambda seen: seen.__setattr__("runs", 0), "never run"),
        (lambda seen: seen.last.__setattr__("exit_code", 4), "and now by"),
        (lambda seen: seen.last.__setattr__("log_end_offset", 1), "log_end_offset was"),
        (lambda seen: seen.__setattr__("again", None), "nobody has looked at it again"),
        (lambda seen: seen.faults.append("two callers"), "two callers"),
        (lambda seen: seen.troubles.append(Trouble("Follow", "UNKNOWN", "?", seen.until)), "Follow failed"),
        (lose, "not both its shim and a runner"),
    ],
)  # fmt: skip
def test_a_fault_is_seen(what: Change, said: str) -> None:
    """A wrong status, a second run, an end that changes, a LOST without a reason: each is a fault."""
    assert any(said in fault for fault in verdict(what).faults), verdict(what)


@pytest.mark.parametrize(
    "damage", ["a byte less", "a byte more", "another byte", "a chunk less", "other order", "a gap"]
)
def test_other_bytes_are_seen(damage: str) -> None:
    """A byte that is missing, too many, changed or elsewhere, and a gap without need: each is a fault."""
    whole = output(TASK)
    first, last = whole[0], whole[-1]
    changed = {
        "a byte less": [first, OutputChunk(last.channel, last.offset, last.data[:-1])],
        "a byte more": [first, OutputChunk(last.channel, last.offset, last.data + b"x")],
        "another byte": [OutputChunk(first.channel, 0, first.data[:99] + b"x" + first.data[100:]), last],
        "a chunk less": [first],
        "other order": [OutputChunk(Channel.STDOUT, 0, first.data[LINE:] + first.data[:LINE]), last],
        "a gap": [Gap(0, LINE), OutputChunk(Channel.STDOUT, LINE, first.data[LINE:]), last],
    }
    seen = observation(pieces=changed[damage])  # type: ignore[arg-type]
    if damage == "a gap":
        for one in (seen.execution, seen.last):
            assert one is not None
            one.log_start_offset, one.totals[0].bytes_dropped = LINE, LINE
    assert judge(seen, Harm()).faults


def test_an_exact_gap_is_none() -> None:
    """Where more is written than is kept, what is missing is told exactly, and what follows is found in its place."""
    end = End(wire.REASON_EXITED, exit_code=3)
    task = Task(8, "flood", end, ((1, 0, 1000, 0.0),), options={"max_output": CAP})
    (whole,) = output(task)
    start = whole.end - CAP + 100  # not at the beginning of a line
    seen = observation(task, [Gap(0, start), OutputChunk(Channel.STDOUT, start, whole.data[start:])])
    for one in (seen.execution, seen.last):
        assert one is not None
        one.log_start_offset, one.totals[0].bytes_dropped = start, start
    assert judge(seen, Harm()) == Verdict("exact")
    off = observation(task, [Gap(0, start), OutputChunk(Channel.STDOUT, start, whole.data[start + LINE :])])
    assert judge(off, Harm()).faults


@pytest.mark.parametrize(
    ("deeds", "explained"),
    [
        ([("kill shim", NAME[:10], 5), ("kill runner", "", 4)], True),
        ([("kill runner", "", 5), ("kill shim", NAME[:10], 1)], True),
        ([("kill shim", NAME[:10], 5)], False),
        ([("kill runner", "", 5)], False),
        ([("kill shim", "another012", 5), ("kill runner", "", 4)], False),
        ([("kill shim", NAME[:10], 5), ("kill runner", "", 400)], False),
        ([("kill shim", NAME[:10], 5), ("kill server", "", 4)], False),
    ],
)
def test_lost_is_explained_by_a_double_kill_only(deeds: list[tuple[str, str, float]], explained: bool) -> None:
    """Its own shim, and a runner while it lived: less does not explain LOST."""
    judged = verdict(lose, harmed(*deeds))
    assert judged.outcome == "lost"
    assert bool(judged.why) == (not judged.faults) == explained


@pytest.mark.parametrize(
    ("errno", "deed", "explained"),
    [
        ("ENOSPC", "full disk", True),
        ("ENOSPC", "kill server", False),
        ("EAGAIN", "no process ids", True),
        ("ECANCELED", "kill runner", True),
        ("ECANCELED", "cut connections", False),
        ("ENOENT", "full disk", False),
    ],
)
def test_a_start_fails_only_of_what_was_done(errno: str, deed: str, explained: bool) -> None:
    """A command that was not started says why, and that is what the torture did at that time."""

    def fail(seen: Observation) -> None:
        for one in (seen.execution, seen.last):
            assert one is not None
            one.CopyFrom(execution())
            one.ClearField("exit_status")
            one.reason, one.start_error.errno = wire.REASON_START_FAILED, errno
            one.log_end_offset = 0
            del one.totals[:]
        seen.reading, seen.again, seen.runs = Reading(TASK), Reading(TASK), 0

    judged = verdict(fail, harmed((deed, "", 5)))
    assert judged.outcome == "not started"
    assert (not judged.faults) == explained, judged


def test_a_command_that_ran_was_started() -> None:
    """What its witness saw was run, whatever is said of it."""

    def fail(seen: Observation) -> None:
        assert seen.execution is not None
        seen.execution.reason = wire.REASON_START_FAILED

    assert any("is said not to have been started" in fault for fault in verdict(fail).faults)
