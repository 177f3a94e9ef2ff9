"""A thousand executions at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench.candidates import asyncssh_client, naive_client, names, rexec, supervisor
from bench.candidates.openssh import Master, Sshd
from bench.lab import Lab
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Size, Turn
from bench.processes import descendants, program, pss
from bench.verify import Wrong

CASE = "1,000 at once"
COMMAND = ("sleep", "600")
CLIENTS = 16
STARTED_WITHIN = 60  # seconds


def cases(size: Size) -> Sequence[Case]:
    count = size.pick(1_000, 200, 5)
    holders = (
        (names.REXEC, _rexec),
        (names.MASTER, _master),
        (names.ASYNCSSH, _asyncssh),
        (names.SUPERVISOR, _supervisor),
        (names.NAIVE, _naive),
    )
    candidates = tuple(Candidate(name, _opened(holder, count), once=True) for name, holder in holders)
    return (Case(CASE, (Metric("memory", "KB each"),), candidates, names.MASTER, warm_up=False),)


# Starts so many commands; gives the processes below which they are all found.
Holder = Callable[[Lab, int], Iterator[Sequence[int]]]


def _opened(holder: Holder, count: int) -> Callable[[Lab], Iterator[Turn]]:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with contextmanager(holder)(lab, count) as roots:
            try:
                yield lambda: _weigh(roots, count)
            finally:
                _end_commands(roots)

    return opened


def _weigh(roots: Sequence[int], count: int) -> dict[str, float]:
    """What keeps the commands, without the commands themselves."""
    deadline = time.monotonic() + STARTED_WITHIN
    while True:
        every = {*roots, *(pid for root in roots for pid in descendants(root))}
        commands = {pid for pid in every if program(pid) == COMMAND[0]}
        if len(commands) == count:
            break
        if time.monotonic() > deadline:
            raise Wrong(f"{len(commands)} commands run, not {count}")
        time.sleep(0.1)
    return {"memory": pss(every - commands) / count / 1e3}


def _end_commands(roots: Sequence[int]) -> None:
    """While it can be seen whose they are: sshd leaves them behind."""
    for pid in (pid for root in roots for pid in descendants(root)):
        if program(pid) == COMMAND[0]:
            os.kill(pid, signal.SIGKILL)


def _at_once(start: Callable[[], object], count: int) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for future in [pool.submit(start) for _ in range(count)]:
            future.result()


def _rexec(lab: Lab, count: int) -> Iterator[Sequence[int]]:
    """A server of its own, with its gateway: all that a deployment has."""
    with lab.own(rexec.RexecServer) as server:
        with rexec.client(server) as client:
            _at_once(lambda: client.start(COMMAND), count)
        yield (server.pid, server.runner_pid)


def _master(lab: Lab, count: int) -> Iterator[Sequence[int]]:
    """One connection, on both sides; and a client for each command, as that is how it is used."""
    with lab.own(Sshd) as sshd, Master(sshd) as master:
        clients = [
            subprocess.Popen(master.command(*COMMAND), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        try:
            yield (sshd.pid, master.pid, *(client.pid for client in clients))
        finally:
            for client in clients:
                client.kill()
            for client in clients:
                client.wait()


def _asyncssh(lab: Lab, count: int) -> Iterator[Sequence[int]]:
    """One connection; of the server's side only, as the client here is this very process."""
    with lab.own(Sshd) as sshd, asyncio.Runner() as runner:
        connecting = asyncssh_client.connect(sshd)
        connection = runner.run(connecting.__aenter__())
        try:
            runner.run(_start_all(connection, count))
            yield (sshd.pid,)
        finally:
            runner.run(connecting.__aexit__(None, None, None))


async def _start_all(connection: object, count: int) -> None:
    for _ in range(count):
        await connection.create_process(" ".join(COMMAND))  # type: ignore[attr-defined]


def _supervisor(lab: Lab, count: int) -> Iterator[Sequence[int]]:
    programs = [(f"sleep-{number}", " ".join(COMMAND)) for number in range(count)]
    with lab.own(supervisor.Supervisord, programs) as server:
        server.proxy().startAllProcesses(False)
        yield (server.pid,)


def _naive(lab: Lab, count: int) -> Iterator[Sequence[int]]:
    with lab.own(naive_client.NaiveServer) as server:
        with naive_client.connection(server.port) as connection:
            for _ in range(count):
                connection.post("/exec", {"cmd": COMMAND})
        yield (server.pid,)


BENCHMARK = Benchmark(
    name="memory",
    title="A thousand executions at once",
    about="`sleep`. PSS of everything that keeps them, divided by them; the commands themselves are not counted.",
    cases=cases,
    pictured=(CASE,),
    goals=(Goal("memory of each", Cell(CASE, names.REXEC, "memory"), "at most", 1_200, unit="KB"),),
)
