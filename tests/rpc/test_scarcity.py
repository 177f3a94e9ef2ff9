"""A server that has run out of something says so, and goes on when it is there again."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import closing

from tests.rpc.calls import follow, poll, refused, request, run, start
from tests.servers import Server


def test_without_descriptors_a_call_is_to_be_repeated(own_server: Server) -> None:
    """What fails for want of a file descriptor is UNAVAILABLE, for readers too, and no defect of the server."""
    start(own_server, "sleep", "300", exec_id="live")
    follow_or_poll = (lambda: poll(own_server, "live", offset=0), lambda: list(follow(own_server, "live")))
    soft, hard = resource.prlimit(own_server.pid, resource.RLIMIT_NOFILE)
    taken = len(os.listdir(f"/proc/{own_server.pid}/fd"))
    resource.prlimit(own_server.pid, resource.RLIMIT_NOFILE, (min(3, taken), hard))
    try:
        for call in follow_or_poll:
            assert "descriptors" in refused(call, "UNAVAILABLE", "UNAVAILABLE").message
    finally:
        resource.prlimit(own_server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert poll(own_server, "live", offset=0).execution.pid
    assert "Traceback" not in own_server.log


def test_a_failure_that_nobody_waits_for_is_no_defect(own_server: Server) -> None:
    """A start that fails after its caller has gone is logged as nothing: no caller is left, and nothing is broken."""
    with closing(sqlite3.connect(own_server.state_dir / "index.sqlite", isolation_level=None)) as index:
        index.execute("BEGIN IMMEDIATE")  # so the server cannot write it, for longer than it waits for that
        refused(lambda: own_server.stub.Exec(request("true"), timeout=0.5), "DEADLINE_EXCEEDED")
        refused(lambda: own_server.stub.Exec(request("true"), timeout=60), "UNAVAILABLE")
        index.execute("ROLLBACK")
    run(own_server, "true")
    assert "never retrieved" not in own_server.log
