"""One file of a living execution is removed, whichever it is, and then those who supervise it die, or do not."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import ended, output, shown, start
from tests.servers import Server
from tests.waiting import eventually

FIRST = f"{0:020d}"
FILES = (
    "start",
    "exit.tmp",
    "lock",
    "out",
    "err",
    "in",
    "control",
    "request",
    "stdin",
    f"{FIRST}.log",
    f"{FIRST}.index",
)
# Without these no one can go on where a dead shim was: what was told of the log, or who runs, is not known any more.
NEEDED = ("start", f"{FIRST}.log", f"{FIRST}.index")
SCRIPT = 'echo out; echo err >&2; until [ -e "$0" ]; do sleep 0.02; done; seq 1 20000; echo late >&2; exit 5'
LATE = b"".join(b"%d\n" % number for number in range(1, 20001))


@pytest.mark.parametrize("deaths", [(), ("shim",), ("runner",), ("runner", "shim"), ("server",)])
def test_a_file_is_removed(server: Server, tmp_path: Path, deaths: tuple[str, ...]) -> None:
    """The end is exact, and all output that can be read is right, wherever it is not LOST, which needs a dead shim."""
    gate, pids = tmp_path / "gate", []
    for name in FILES:
        pid = start(server, "sh", "-c", SCRIPT, str(gate), exec_id=name, stdin_mode=api.STDIN_MODE_OPEN).pid
        shown(server, name, b"err\n")
        (server.spool_of(pid) / name).unlink()
        pids.append(pid)
    for who in deaths:
        _kill(server, who, pids)
    gate.touch()
    for name in FILES:
        lost = "shim" in deaths and name in NEEDED
        _check(server, name, lost=lost, whole=not name.startswith(FIRST) and not lost)


def _kill(server: Server, who: str, pids: list[int]) -> None:
    match who:
        case "shim":
            for shim in [psutil.Process(pid).parent() for pid in pids]:
                shim.kill()
        case "runner":
            before = server.runner_pid
            server.kill_runner()
            eventually(lambda: server.runner_pid != before and psutil.pid_exists(server.runner_pid))
            start(server, "true", exec_id="next")  # it has looked at all by now
        case "server":
            server.restart()


def _check(server: Server, name: str, *, lost: bool, whole: bool) -> None:
    execution = ended(server, name)
    if lost:
        assert execution.state == pb.STATE_LOST, (name, execution)
        return
    assert (execution.state, execution.exit_code) == (pb.STATE_FAILED, 5), (name, execution)
    if whole:
        assert output(server, name, channels=[pb.CHANNEL_STDOUT]) == b"out\n" + LATE, name
        assert output(server, name, channels=[pb.CHANNEL_STDERR]) == b"err\nlate\n", name
