"""What is forgotten, when, and what never is."""

from __future__ import annotations

import sqlite3
import time

from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, ended, listed, poll, refused, run, start
from tests.servers import Server
from tests.waiting import eventually


def spool(server: Server) -> int:
    """How many executions have a directory."""
    return sum(path.is_dir() for path in (server.state_dir / "spool").iterdir())


def test_expire_time_is_end_plus_retention(server: Server) -> None:
    """Callers are told when: by default a day after the end, or what they asked for."""
    for fields, seconds in (({}, 86400), ({"retention": 100}, 100)):
        execution = run(server, "true", **fields).execution
        assert execution.expire_time.ToSeconds() - execution.end_time.ToSeconds() == seconds


def test_what_expires_is_gone_with_its_output(server: Server) -> None:
    """After its time record and files are gone, not before, and others are untouched."""
    run(server, "echo", "hi", exec_id="short", retention=1)
    run(server, "echo", "hi", exec_id="long")
    assert spool(server) == 2
    assert listed(server) == ["long", "short"]
    before = time.monotonic()
    eventually(lambda: listed(server) == ["long"])
    assert time.monotonic() - before > 0.4
    refused(lambda: poll(server, "short"), "NOT_FOUND")
    eventually(lambda: spool(server) == 1)
    refused(lambda: start(server, "true", exec_id="short"), "FAILED_PRECONDITION", "EXEC_ID_USED")


def test_the_time_begins_at_the_end(server: Server) -> None:
    """A running execution does not expire, however short its retention."""
    start(server, "sleep", "2.5", exec_id="runs", retention=0)
    assert not eventually(lambda: poll(server, "runs", tail_bytes=0)).execution.HasField("expire_time")
    answer = poll(server, "runs", offset=0, wait=20)
    assert answer.execution.state == pb.STATE_SUCCEEDED
    eventually(lambda: not listed(server))


def test_expiry_while_the_server_was_down(server: Server) -> None:
    """What expired meanwhile is gone after the start."""
    run(server, "true", exec_id="old", retention=1.5)
    server.kill()
    server.start()
    eventually(lambda: not listed(server))
    assert eventually(lambda: spool(server) == 0)


def test_keep_count(start_server: START_SERVER) -> None:
    """Of ended executions the newest are kept, as many as set; a live one is older and stays."""
    server = start_server("--keep-count", "3")
    start(server, "sleep", "60", exec_id="live")
    for number in range(6):
        run(server, "true", exec_id=f"e{number}")
    server.restart()
    eventually(lambda: listed(server) == ["e5", "e4", "e3", "live"])
    refused(lambda: start(server, "true", exec_id="e0"), "FAILED_PRECONDITION", "EXEC_ID_USED")
    server.stub.Cancel(api.CancelRequest(exec_id="live"))
    assert ended(server, "live").reason == pb.REASON_CANCELLED


def test_keep_bytes(start_server: START_SERVER) -> None:
    """Ended executions keep so much output together; the oldest go first, live ones never."""
    server = start_server("--keep-bytes", "250K")
    start(server, "sh", "-c", "head -c 1000000 /dev/zero; sleep 60", exec_id="live")
    for number in range(5):
        run(server, "head", "-c", "100000", "/dev/zero", exec_id=f"e{number}")
    server.restart()
    eventually(lambda: listed(server) == ["e4", "e3", "live"])
    eventually(lambda: spool(server) == 3)


def test_what_is_too_much_goes_without_a_restart(start_server: START_SERVER) -> None:
    """The count is looked at while the server runs, too."""
    server = start_server("--keep-count", "0")
    run(server, "true")
    eventually(lambda: not listed(server), within=45)


def test_a_delete_that_loses_the_runner_leaves_no_output(server: Server) -> None:
    """Output of a deleted execution is removed from the disk, also when the runner dies in between."""
    run(server, "echo", "hi", exec_id="d")
    server.kill_runner()
    server.stub.Delete(api.DeleteRequest(exec_id="d"))
    assert spool(server) == 0


def test_output_that_was_left_behind_is_swept(server: Server) -> None:
    """A server that died between forgetting and removing leaves nothing for ever: the next one removes it."""
    run(server, "true", exec_id="gone")
    run(server, "true", exec_id="kept")
    server.terminate()
    with sqlite3.connect(server.state_dir / "index.sqlite") as db:
        db.execute("UPDATE execution SET delete_time = ?, request = '{}' WHERE exec_id = 'gone'", (time.time_ns(),))
    db.close()
    assert spool(server) == 2
    server.start()
    eventually(lambda: spool(server) == 1)
    assert listed(server) == ["kept"]
