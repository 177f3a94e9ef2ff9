"""The audit: what was begun is on disk before it begins, one line each, whatever a caller writes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexec_server.core.errors import Unavailable
from rexec_server.core.execution import State
from rexec_server.core.origin import Origin
from rexec_server.core.spool import Reason, StartError
from rexec_server.policy import audit_line
from rexec_server.policy.audit import MOST_OWED, NOISE, Audit
from rexec_server.policy.audit_line import MOST_BYTES, AuditLine
from rexec_server.policy.caller import Caller
from tests.policy.records import ORIGIN, ended, execution, lines

ALICE = Caller("alice", origin=ORIGIN)


class Disk:
    """A place for lines that can be full, fail to sync, and tells what it was asked for."""

    def __init__(self) -> None:
        self.lines: list[AuditLine] = []
        self.calls: list[str] = []
        self.error: int | None = None
        self.sync_error: int | None = None

    def write(self, line: AuditLine) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.calls.append("write")
        self.lines.append(line)

    def wait(self, seconds: float) -> None:
        self.calls.append("wait")
        self.error = None

    def sync(self) -> None:
        self.calls.append("sync")
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))

    def close(self) -> None:
        self.calls.append("close")


def test_a_start_is_told_with_all_that_may_be_shown(audit: Audit, path: Path) -> None:
    """The line says who, how proven, from where, what, by which rule and as whom."""
    asked = execution(
        "tail", "x", environment_names=("TOKEN",), stdin_bytes=12, stdin_open=True, rule="tail-log", user=1000
    )
    audit.accepted("s1", asked, ORIGIN)
    (line,) = lines(path)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "event": "accepted", "caller": "alice", "method": "token", "key_id": "alice-1", "token_id": "7c1d",
        "peer": "ipv4:10.0.0.7:40212", "exec_id": "e1", "name": "s1", "rule": "tail-log", "arguments": ["tail", "x"],
        "working_directory": "/srv", "environment_names": ["TOKEN"], "stdin_bytes": 12, "stdin_open": True,
        "user": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "record", "told"),
    [
        (State.SUCCEEDED, {}, {"reason": "EXITED", "exit_code": 0, "duration": 1.5}),
        (
            State.FAILED,
            {"reason": Reason.CANCELLED, "exit_code": None, "signal": 15},
            {"reason": "CANCELLED", "signal": 15, "duration": 1.5},
        ),
        (
            State.FAILED,
            {"reason": Reason.START_FAILED, "exit_code": None, "start_error": StartError("ENOENT", "no such")},
            {"reason": "START_FAILED", "start_error": "ENOENT"},
        ),
        (
            State.LOST,
            {"reason": Reason.LOST, "exit_code": None, "lost": "a reboot"},
            {"reason": "LOST", "lost": "a reboot", "duration": 1.5},
        ),
    ],
    ids=["exit code", "signal", "not started", "lost"],
)
def test_an_end_is_told_as_it_is_known(
    audit: Audit, path: Path, state: State, record: dict[str, object], told: dict[str, object]
) -> None:
    """Exactly one of exit code, signal, start error and lost is there; what is not known is not made up."""
    audit.finished("s1", ended(execution(rule="r"), state, **record))
    (line,) = lines(path)
    del line["time"]
    assert line == told | {
        "event": "finished", "caller": "alice", "exec_id": "e1", "name": "s1", "rule": "r", "state": state.name,
        "end_time": "1970-01-01T00:00:05.000Z", "stdout_bytes": 7, "stderr_bytes": 9, "dropped_bytes": 4,
        "leftover_processes": 0,
    }  # fmt: skip


def test_other_events_say_who_did_them(audit: Audit, path: Path) -> None:
    """An event of a caller has its credential's facts; one of nobody has none."""
    audit.event("signalled", ALICE, owner="bob", exec_id="e9", signal=9)
    audit.event("started", None, version="1")
    first, second = lines(path)
    assert (first["caller"], first["owner"], first["key_id"], first["signal"]) == ("alice", "bob", "alice-1", 9)
    assert second.keys() == {"time", "event", "version"}


def test_t_lg_03_what_a_caller_writes_stays_in_its_line(audit: Audit, path: Path) -> None:
    """T-LG-03: newlines, escapes, separators and direction marks make no second line, and nothing unprintable."""
    nasty = 'a\n{"event":"accepted"}\r\x1b[2J\x7f\x85\u2028\u202e"\\'
    audit.accepted("s1", execution("sh", nasty), ORIGIN)
    audit.event("denied", ALICE, arguments=[nasty], reason=nasty)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2
    assert all(byte == 10 or 32 <= byte < 127 for byte in raw)
    assert [line["arguments"][-1] for line in lines(path)] == [nasty, nasty]


@given(arguments=st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_t_lg_03_any_argument_comes_back_from_its_line(arguments: list[str]) -> None:
    """T-LG-03: a line is one printable line of JSON, and says exactly what was asked."""
    text = audit_line.accepted("s", execution(*arguments), Origin()).text
    assert text.isprintable()
    assert text.isascii()
    assert json.loads(text)["arguments"] == arguments


@pytest.mark.parametrize("argument", ["x" * 100_000, "\u00e9" * 60_000, ""], ids=["ascii", "two bytes", "many empty"])
def test_long_arguments_are_cut_and_said_to_be(argument: str) -> None:
    """A line stays short; how much there was and its digest are told, so that it can be recognised."""
    arguments = ("echo", argument) if argument else ("echo",) + ("",) * 50_000
    line = json.loads(audit_line.accepted("s", execution(*arguments), ORIGIN).text)
    assert sum(len(text.encode()) + 1 for text in line["arguments"]) <= MOST_BYTES + 1
    assert arguments[1].startswith(line["arguments"][1])
    whole = "\0".join(arguments).encode()
    assert line["arguments_cut"] == {
        "count": len(arguments),
        "bytes": sum(len(text.encode()) for text in arguments),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }


def test_what_just_fits_is_not_cut() -> None:
    """The limit is what is kept, not what is cut."""
    line = json.loads(audit_line.accepted("s", execution("a" * MOST_BYTES), ORIGIN).text)
    assert line["arguments"] == ["a" * MOST_BYTES]
    assert "arguments_cut" not in line


def test_one_sync_for_all_that_was_accepted() -> None:
    """A batch costs one sync, an end none, and nothing is synced that is on disk already."""
    disk = Disk()
    audit = Audit(lambda: disk)
    for number in range(3):
        audit.accepted(f"s{number}", execution(), ORIGIN)
    audit.sync()
    audit.finished("s0", ended(execution()))
    audit.sync()
    assert disk.calls == ["write"] * 3 + ["sync", "write"]


def test_a_sync_that_fails_refuses_all_that_waits_for_it() -> None:
    """None of a batch may be started when the disk did not take it; the next batch is another matter."""
    disk = Disk()
    audit = Audit(lambda: disk)
    audit.accepted("s1", execution(), ORIGIN)
    disk.sync_error = errno.EIO
    with pytest.raises(Unavailable, match=r"^the audit log cannot be written: Input/output error$"):
        audit.sync()
    disk.sync_error = None
    audit.accepted("s2", execution(), ORIGIN)
    audit.sync()


def test_a_rotation_amid_a_batch_does_not_hide_a_failed_sync() -> None:
    """What was accepted into the old file is refused when that one could not be synced, though the new one could."""
    old, new = Disk(), Disk()
    disks = iter([old, new])
    audit = Audit(lambda: next(disks))
    audit.accepted("s1", execution(), ORIGIN)
    old.sync_error = errno.EIO
    audit.reopen()
    assert old.calls[-1] == "close"
    with pytest.raises(Unavailable, match="old file"):
        audit.sync()
    audit.accepted("s2", execution(), ORIGIN)
    audit.sync()
    assert new.calls == ["write", "sync"]


def test_ends_on_a_full_disk_are_owed(caplog: pytest.LogCaptureFixture) -> None:
    """An end never fails; it is written when there is room, before anything else, and the log says so once."""
    disk = Disk()
    audit = Audit(lambda: disk)
    disk.error = errno.ENOSPC
    for number in range(3):
        audit.finished(f"s{number}", ended(execution(exec_id=f"e{number}")))
    audit.event("reloaded", None)
    with pytest.raises(Unavailable, match=r"^the audit log cannot be written: No space left on device$"):
        audit.accepted("s4", execution(), ORIGIN)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    disk.error = None
    audit.accepted("s5", execution(exec_id="e5"), ORIGIN)
    told = [(line.event, line.exec_id) for line in disk.lines]
    assert told == [("finished", "e0"), ("finished", "e1"), ("finished", "e2"), ("missed", ""), ("accepted", "e5")]
    assert json.loads(disk.lines[3].text)["lines"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_what_is_owed_is_bounded() -> None:
    """A disk that stays full does not fill the memory; what was not kept is counted."""
    disk = Disk()
    audit = Audit(lambda: disk)
    disk.error = errno.ENOSPC
    end = ended(execution())
    for _ in range(MOST_OWED + 7):
        audit.finished("s", end)
    disk.error = None
    audit.event("started", None)
    assert len(disk.lines) == MOST_OWED + 2
    assert json.loads(disk.lines[-2].text)["lines"] == 7


def test_a_start_waits_for_a_full_queue_and_an_end_does_not() -> None:
    """A journal that is only busy refuses nobody; the event loop does not wait for it."""
    disk = Disk()
    audit = Audit(lambda: disk)
    disk.error = errno.EAGAIN
    audit.finished("s0", ended(execution()))
    audit.accepted("s1", execution(), ORIGIN)
    assert disk.calls == ["wait", "write", "write"]
    assert [line.event for line in disk.lines] == ["finished", "accepted"]


def test_refusals_that_anybody_can_cause_are_limited() -> None:
    """Nobody fills the disk by being refused; how many were left out is told with the next, others are not affected."""
    disk = Disk()
    audit = Audit(lambda: disk)
    for _ in range(NOISE.times + 5):
        audit.event("unauthenticated", None, peer="ipv4:10.0.0.9:1")
    assert NOISE.times <= len(disk.lines) <= NOISE.times + 4  # a second may pass meanwhile
    left_out = NOISE.times + 5 - len(disk.lines)
    audit.event("denied", ALICE, reason="not permitted")
    assert json.loads(disk.lines[-1].text)["suppressed"] == left_out
    audit.event("denied", ALICE, reason="not permitted")
    assert "suppressed" not in json.loads(disk.lines[-1].text)
