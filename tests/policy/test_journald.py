"""The audit in systemd's journal: each line is an entry, whatever its length, also after journald was restarted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_server.core.errors import Unavailable
from rexec_server.policy.audit import Audit
from rexec_server.policy.files import PolicyError
from tests.policy.journals import FakeJournald
from tests.policy.records import ORIGIN, ended, execution


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journald(path: Path) -> Iterator[FakeJournald]:
    journald = FakeJournald(path)
    yield journald
    journald.close()


@pytest.fixture
def audit(journald: FakeJournald, path: Path) -> Iterator[Audit]:
    audit = Audit.open(f"journald:{path}")
    yield audit
    audit.close()


def test_a_line_is_an_entry_with_fields_to_look_for(audit: Audit, journald: FakeJournald) -> None:
    """journalctl finds it by event, caller and id; its message is the line."""
    audit.accepted("s1", execution("tail", "a\nb"), ORIGIN)
    audit.sync()
    entry = journald.next()
    assert json.loads(entry.pop("MESSAGE"))["arguments"] == ["tail", "a\nb"]
    assert entry == {
        "SYSLOG_IDENTIFIER": "rexec-audit",
        "PRIORITY": "6",
        "REXEC_EVENT": "accepted",
        "REXEC_CALLER": "alice",
        "REXEC_EXEC_ID": "e1",
    }


def test_a_line_that_no_datagram_holds_comes_whole(tmp_path: Path) -> None:
    """The longest line there can be goes as a sealed file, where the system's datagrams are smaller."""
    nasty = "\x01" * 16_384
    asked = execution(nasty, environment_names=(nasty,))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        assert small.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < len(nasty)
    path = tmp_path / "journal"
    journald = FakeJournald(path)
    audit = Audit.open(f"journald:{path}")
    reader = threading.Thread(target=lambda: entries.append(journald.next()))
    entries: list[dict[str, str]] = []
    reader.start()
    audit.accepted("s1", asked, ORIGIN)
    reader.join()
    assert json.loads(entries[0]["MESSAGE"])["environment_names"] == [nasty]
    audit.close()
    journald.close()


def test_a_restart_of_journald_costs_no_line(audit: Audit, journald: FakeJournald, path: Path) -> None:
    """A new journald at the same place gets the next line."""
    audit.event("one", None)
    journald.close()
    path.unlink()
    second = FakeJournald(path)
    audit.event("two", None)
    assert second.next()["REXEC_EVENT"] == "two"
    second.close()


def test_without_journald_a_start_is_refused(audit: Audit, journald: FakeJournald, path: Path) -> None:
    """While nobody takes lines nothing is started; an end comes when somebody does again."""
    journald.close()
    path.unlink()
    audit.finished("s0", ended(execution()))
    with pytest.raises(Unavailable, match="the audit log cannot be written: No such file"):
        audit.accepted("s1", execution(), ORIGIN)
    second = FakeJournald(path)
    audit.accepted("s2", execution(), ORIGIN)
    assert [second.next()["REXEC_EVENT"] for _ in range(2)] == ["finished", "accepted"]
    second.close()


def test_a_busy_journald_is_waited_for_by_a_start_alone(audit: Audit, journald: FakeJournald) -> None:
    """With a full queue an end is owed at once, and a start goes on when there is room."""
    sent = 0
    while not audit._owed:
        audit.finished(f"s{sent}", ended(execution()))
        sent += 1
    starter = threading.Thread(target=lambda: audit.accepted("new", execution(), ORIGIN))
    starter.start()
    events = [journald.next()["REXEC_EVENT"] for _ in range(sent + 1)]
    starter.join()
    assert events == ["finished"] * sent + ["accepted"]


def test_a_journald_that_is_not_there_is_refused(path: Path) -> None:
    """The server does not begin without a place for its audit."""
    with pytest.raises(PolicyError, match=f"cannot write the audit to journald at {path}: No such file"):
        Audit.open(f"journald:{path}")
