"""A server that gets no inotify instance: late, not deaf."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import start
from tests.servers import Server

# In a user namespace of its own the limit is the namespace's, and nobody else's.
NONE_LEFT = ("unshare", "--user", "--map-root-user", "sh", "-c")
NONE_LEFT += ('echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh")


@pytest.fixture
def deaf_server(tmp_path: Path) -> Iterator[Server]:
    if not shutil.which("unshare") or subprocess.run([*NONE_LEFT, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("user namespaces are not allowed here")
    server = Server(tmp_path / "state", prefix=NONE_LEFT)
    yield server
    server.close()


def test_row_19_follow_works_without_inotify(deaf_server: Server) -> None:
    """Failure 19: inotify may be exhausted; output and end reach a follower all the same."""
    features = deaf_server.stub.GetServerInfo(api.GetServerInfoRequest()).features
    assert "inotify" not in features
    start(deaf_server, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; exit 5", exec_id="x")
    messages = list(deaf_server.stub.Follow(api.FollowRequest(exec_id="x"), timeout=30))
    data = b"".join(chunk.data for message in messages for chunk in message.output.chunks)
    assert data == b"1\n2\n3\n"
    assert (messages[-1].end.state, messages[-1].end.exit_code) == (pb.STATE_FAILED, 5)
