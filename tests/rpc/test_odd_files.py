"""Another kind of file in the place of one in the spool: damage of one execution, which delays no other."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from rexec.v1 import execution_pb2 as pb

from rexec_server.core.spool import CONTROL, EXIT, EXIT_DRAFT, LOCK, START, STDIN_STATE, index_name, segment_name
from tests.rpc.calls import ended, joined, listed, outcome, poll, run, shown, start
from tests.servers import Server

NAMES = [segment_name(0), index_name(0), START, EXIT, EXIT_DRAFT, STDIN_STATE, LOCK, CONTROL]


def make_socket(path: Path) -> None:
    """Make a socket by a short name: a socket's path is limited to 107 bytes."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)


KINDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "link to a device": lambda path: os.symlink("/dev/zero", path),
    "socket": make_socket,
}


def begin(server: Server, names: list[str]) -> dict[str, pb.Execution]:
    """Starts an execution for each name: they all run, and have written a line."""
    started = {name: start(server, "sh", "-c", "echo on; exec sleep 300", stdin_mode=3) for name in names}
    for execution in started.values():
        shown(server, execution.exec_id, b"on")
    return started


def replace(server: Server, started: dict[str, pb.Execution], kind: str) -> None:
    """Puts something else in the place of each execution's file of that name."""
    paths = [server.spool_of(execution.pid) / name for name, execution in started.items()]
    for path in paths:
        path.unlink(missing_ok=True)
        KINDS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_stops_nobody(own_server: Server, kind: str) -> None:
    """Every call answers, right or with an error, and the others run; so it is after a restart."""
    started = begin(own_server, NAMES)
    replace(own_server, started, kind)
    for _ in range(2):
        for execution in started.values():
            outcome(lambda exec_id=execution.exec_id: poll(own_server, exec_id, offset=0))
            outcome(lambda exec_id=execution.exec_id: poll(own_server, exec_id, tail_lines=2, wait=0.1))
        assert {execution.exec_id for execution in started.values()} <= set(listed(own_server))
        assert joined(run(own_server, "echo", "well").chunks) == b"well\n"
        own_server.restart()
    for execution in started.values():
        os.kill(execution.pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_runner_takes_what_is_no_regular_file_for_damage(own_server: Server, kind: str) -> None:
    """When the shims die each of these executions ends, whatever is known of its end, and the others run."""
    started = begin(own_server, [segment_name(0), index_name(0), START, EXIT, EXIT_DRAFT, STDIN_STATE])
    shims = [own_server.shim_pid(execution.exec_id) for execution in started.values()]
    replace(own_server, started, kind)
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    assert joined(run(own_server, "echo", "well").chunks) == b"well\n"
    for execution in started.values():
        with suppress(ProcessLookupError):  # those that cannot be supervised any more were ended
            os.kill(execution.pid, signal.SIGKILL)
    for execution in started.values():
        ended(own_server, execution.exec_id)
