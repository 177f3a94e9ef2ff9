"""Commands that mean harm: each ends within what it was given, and nobody else notices."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rexec_server.core.launch import Confinement, Limits
from rexec_server.core.log import Missing
from rexec_server.core.spool import Reason, segment_offsets
from tests.runner.harness import Client, Run, Runner
from tests.runner.test_output import RECORDS
from tests.runner.users import CONFINED, PYTHON
from tests.servers import Server
from tests.waiting import eventually

SHARES_SERVER = True

# The mark in the environment by which a test finds all that a command became.
MARK = "REXEC_TEST_BOMB"
# A health check that takes longer was held up. An idle machine takes milliseconds; other tests may have both cores.
HELD_UP_SECONDS = 5.0
# A user that no other test is: a limit of processes counts all that a user has.
NOBODY_ELSE = 61_000

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(300)
    os._exit(0)
os.wait()
print('away', flush=True)
time.sleep(300)
"""
# Each generation lives 50 ms, in a session of its own.
FUGITIVE = """
import os, time
if os.fork():
    print('away', flush=True)
    time.sleep(300)
while True:
    os.setsid()
    time.sleep(0.05)
    if os.fork(): os._exit(0)
"""
MEMORY = "x = []\nwhile True: x.append(bytearray(10 << 20))"
CPU = "while True: pass"
FILE = "import tempfile\nf = tempfile.TemporaryFile()\nwhile True: f.write(b'x' * 65536)"
FILES = "f = []\nwhile True: f.append(open('/dev/null'))"
# Who got no child sleeps a moment: processes that spin would take the processor from whoever measures.
PROCESSES = """
import os, time
while True:
    try: os.fork()
    except OSError: time.sleep(0.01)
"""


@pytest.fixture
def confinement() -> Confinement:
    """Another user where that is possible; else the bombs go off as ourselves."""
    return CONFINED if os.geteuid() == 0 else Confinement(no_new_privileges=True)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The runner of a real server, asked for what only a policy's rule could ask for."""
    client = Client.of(server.state_dir)
    yield client
    client.disconnect()


def descendants(mark: str) -> list[int]:
    """All processes with that mark, whoever is their parent now."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def outlive(run: Run, server: Server) -> float:
    """Waits for the command's end, and asks the server's health all the time. Returns the slowest answer in seconds."""
    slowest = 0.0

    def check() -> bool:
        nonlocal slowest
        began = time.monotonic()
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        slowest = max(slowest, time.monotonic() - began)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        return run.exit is not None

    with grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        eventually(check, within=60)
    return slowest


@pytest.mark.parametrize("script", [DAEMON, FUGITIVE], ids=["daemon", "re-forks every 50 ms"])
def test_t_cn_04_nothing_outlives_a_timeout(
    start_runner: Callable[..., Runner], confinement: Confinement, script: str
) -> None:
    """Neither a daemon in a session of its own nor one that never stays the same process is left."""
    mark = uuid.uuid4().hex
    runner = start_runner("--no-cgroup")
    run = runner.run(PYTHON, "-c", script, env={MARK: mark}, timeout=6, kill_grace=0.1, confinement=confinement)
    eventually(lambda: run.output() == b"away\n")
    assert len(descendants(mark)) >= 2
    assert run.wait().reason == Reason.TIMED_OUT
    eventually(lambda: not descendants(mark))


@pytest.mark.parametrize(
    ("script", "limits", "ends"),
    [
        (MEMORY, Limits(memory_bytes=300 << 20), {Reason.EXITED}),
        (CPU, Limits(cpu_seconds=1), {Reason.SIGNALED}),
        (FILE, Limits(file_bytes=1 << 20), {Reason.EXITED}),
        (FILES, Limits(open_files=20), {Reason.EXITED}),
    ],
    ids=["memory", "cpu", "fsize", "nofile"],
)
def test_t_cn_05_a_bomb_ends_within_its_limit(
    server: Server, client: Client, confinement: Confinement, script: str, limits: Limits, ends: set[Reason]
) -> None:
    """The kernel stops it, and the server answers meanwhile as if nothing were."""
    run = client.run(PYTHON, "-c", script, limits=limits, timeout=20, confinement=confinement)
    assert outlive(run, server) < HELD_UP_SECONDS
    record = run.wait()
    assert record.reason in ends
    assert record.exit_code != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit counts all processes of a user, so it must be another's")
def test_t_cn_05_a_fork_bomb_stays_small(server: Server, client: Client) -> None:
    """It gets no more processes than the limit, and the end takes all that it got."""
    mark = uuid.uuid4().hex
    run = client.run(
        PYTHON, "-c", PROCESSES, env={MARK: mark}, limits=Limits(processes=30), timeout=5, kill_grace=0.1,
        confinement=CONFINED._replace(user=NOBODY_ELSE, group=NOBODY_ELSE),
    )  # fmt: skip
    eventually(lambda: len(descendants(mark)) > 5)
    assert len(descendants(mark)) <= 30
    assert outlive(run, server) < HELD_UP_SECONDS
    assert run.wait().reason == Reason.TIMED_OUT
    eventually(lambda: not descendants(mark))


def test_t_cn_06_endless_output_takes_no_room(server: Server, client: Client, confinement: Confinement) -> None:
    """However much is written, memory is flat, the spool is within the cap, and what is gone is told as gone."""
    cap = 4 << 20
    run = client.run("yes", output_bytes=cap, confinement=confinement)
    processes = [psutil.Process(pid) for pid in (run.shim_pid, server.runner_pid, server.pid)]
    before = [process.memory_info().rss for process in processes]

    def written() -> int:
        assert run.disk_bytes() <= cap + RECORDS
        return max(segment_offsets(str(run.directory)), default=0)

    eventually(lambda: written() > 500 << 20, within=60)
    grown = [process.memory_info().rss - rss for process, rss in zip(processes, before, strict=True)]
    run.end(grace=0)
    assert run.wait().stdout_bytes > 500 << 20
    assert max(grown) < 4 << 20, grown
    assert any(isinstance(item, Missing) for item in run.items())
