"""Files of one execution that cannot be read: a bad sector, say. It is that execution's trouble, and nobody else's."""

from __future__ import annotations

import pytest
from rexec.v1 import execution_service_pb2 as api

from rexec_server.core.spool import EXIT, START, index_name, segment_name
from tests.rpc.calls import listed, poll, run, shown, start
from tests.servers import Server


@pytest.mark.parametrize("name", [EXIT, START, segment_name(0), index_name(0)])
def test_an_unreadable_file_stops_nobody_else(own_server: Server, name: str) -> None:
    """The server starts, lists all, and serves the others."""
    start(own_server, "sh", "-c", "echo on; sleep 300", exec_id="bad")
    shown(own_server, "bad", b"on")
    directory = own_server.spool_of(poll(own_server, "bad").execution.pid)
    start(own_server, "sleep", "300", exec_id="good")
    own_server.kill()
    (directory / name).unlink(missing_ok=True)
    (directory / name).mkdir()  # reading it is an error
    own_server.start()
    assert poll(own_server, "good").execution.pid
    assert listed(own_server) == ["good", "bad"]
    assert run(own_server, "true").execution.exit_code == 0
    own_server.stub.Cancel(api.CancelRequest(exec_id="good"))
