"""`true`, from the call to the exit status being known."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from bench.candidates import asyncssh_client, naive_client, names, paramiko_client, rexec, supervisor
from bench.candidates.openssh import Master, Sshd
from bench.candidates.production import ProductionServer
from bench.lab import Lab
from bench.load import by_one, by_tasks, by_threads
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Opened, Size, Turn
from bench.verify import expect_output, expect_status
from rexec_client import AsyncClient, Client

LIMIT = "posix_spawn + wait (limit)"
COMMAND = ("true",)
ONE, MANY = "1 client", "16 clients"
FOUR_MASTERS = f"{names.MASTER}, 4 at once"

Call = Callable[[], None]
# Opens one client; each of its calls is one `true`, run to its end and verified.
Clients = Callable[[Lab], AbstractContextManager[Call]]


def cases(size: Size) -> Sequence[Case]:
    one, many = size.pick(100, 20, 2), size.pick(320, 64, 16)
    latency, rate = (Metric("p50", "ms"), Metric("p99", "ms")), Metric("rate", "/s", "higher")
    return (
        Case(ONE, (*latency, rate), _candidates(1, one), names.MASTER),
        Case(MANY, (rate, *latency), _candidates(16, many), names.MASTER),
    )


def _candidates(clients: int, count: int) -> tuple[Candidate, ...]:
    slow = max(clients, count // 10)  # of what takes a tenth of a second and more, fewer runs tell as much
    once = {names.REXEC_CLI, names.SSH} if clients > 1 else set()
    at_once = [
        (names.REXEC, _threads(_library, clients, count)),
        (names.REXEC_ASYNC, _tasks(_async_library, clients, count)),
        (names.REXEC_RAW, _threads(_raw, clients, count)),
        (names.REXEC_PRODUCTION, _threads(_production, clients, count)),
        (names.REXEC_CLI, _threads(_cli, clients, slow)),
        (names.SSH, _threads(_ssh, clients, slow)),
        (names.MASTER, _threads(_master, clients, count, shared=True)),
        *([(FOUR_MASTERS, _threads(_master, 4, count, shared=True))] if clients > 4 else []),
        (names.ASYNCSSH, _tasks(_asyncssh, clients, count)),
        (names.PARAMIKO, _threads(_paramiko, clients, slow, shared=True)),
        (names.SUPERVISOR, _supervisor(clients, slow)),
        (names.NAIVE, _threads(_naive, clients, count)),
        (LIMIT, _threads(_spawn, clients, count)),
    ]
    return tuple(Candidate(name, opened, once=name in once) for name, opened in at_once)


def _threads(client: Clients, clients: int, count: int, *, shared: bool = False) -> Callable[[Lab], Opened]:
    """A thread for each client; and a connection, unless they are `shared`."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with ExitStack() as stack:
            opened_clients = [stack.enter_context(client(lab)) for _ in range(1 if shared else clients)]
            for call in opened_clients:
                call()  # its connection is open from now on
            calls = opened_clients * (clients if shared else 1)
            yield lambda: by_one(calls[0], count) if clients == 1 else by_threads(calls, count)

    return opened


@contextmanager
def _library(lab: Lab) -> Iterator[Call]:
    with rexec.client(lab.get(rexec.RexecServer)) as client:
        yield lambda: _run(client)


@contextmanager
def _production(lab: Lab) -> Iterator[Call]:
    with lab.get(ProductionServer).client() as client:
        yield lambda: _run(client)


def _run(client: Client) -> None:
    result = client.run(COMMAND)
    _expect(result.returncode, result.stdout)


@contextmanager
def _raw(lab: Lab) -> Iterator[Call]:
    with rexec.stub(lab.get(rexec.RexecServer)) as stub:
        yield lambda: _expect(*rexec.run_raw(stub, COMMAND))


@contextmanager
def _cli(lab: Lab) -> Iterator[Call]:
    command = rexec.cli(lab.get(rexec.RexecServer).target, "run", "--", *COMMAND)
    yield lambda: _program(command)


@contextmanager
def _ssh(lab: Lab) -> Iterator[Call]:
    command = lab.get(Sshd).command(*COMMAND)
    yield lambda: _program(command)


@contextmanager
def _master(lab: Lab) -> Iterator[Call]:
    with Master(lab.get(Sshd)) as master:
        command = master.command(*COMMAND)
        yield lambda: _program(command)


@contextmanager
def _paramiko(lab: Lab) -> Iterator[Call]:
    with paramiko_client.connect(lab.get(Sshd)) as client:
        yield lambda: _expect(*paramiko_client.run(client, *COMMAND))


@contextmanager
def _naive(lab: Lab) -> Iterator[Call]:
    with naive_client.connection(lab.get(naive_client.NaiveServer).port) as connection:

        def call() -> None:
            output: list[bytes] = []
            _expect(naive_client.run(connection, COMMAND, output.append), b"".join(output))

        yield call


@contextmanager
def _spawn(_: Lab) -> Iterator[Call]:
    def call() -> None:
        pid = os.posix_spawnp(COMMAND[0], COMMAND, os.environ)
        expect_status(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    yield call


def _supervisor(clients: int, count: int) -> Callable[[Lab], Opened]:
    """Its programs have names, one for each client."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        server = lab.get(supervisor.Supervisord)
        calls = [_supervised(server.proxy(), name) for name, _ in server.programs[:clients]]
        yield lambda: by_one(calls[0], count) if clients == 1 else by_threads(calls, count)

    return opened


def _supervised(proxy: object, name: str) -> Call:
    return lambda: expect_status(supervisor.run(proxy, name))


def _tasks(turn: Callable[[Lab, int, int], Opened], clients: int, count: int) -> Callable[[Lab], Opened]:
    return lambda lab: turn(lab, clients, count)


@contextmanager
def _async_library(lab: Lab, clients: int, count: int) -> Iterator[Turn]:
    target = lab.get(rexec.RexecServer).target
    with asyncio.Runner() as runner:
        opened = AsyncClient(target)

        async def call() -> None:
            result = await opened.run(COMMAND)
            expect_status(result.returncode)
            expect_output(result.stdout, b"")

        try:
            runner.run(call())
            yield lambda: runner.run(by_tasks([call] * clients, count))
        finally:
            runner.run(opened.aclose())


@contextmanager
def _asyncssh(lab: Lab, clients: int, count: int) -> Iterator[Turn]:
    with asyncio.Runner() as runner:
        connecting = asyncssh_client.connect(lab.get(Sshd))

        async def call() -> None:
            result = await connection.run(*COMMAND)
            expect_status(result.exit_status)
            expect_output(result.stdout, b"")

        connection = runner.run(connecting.__aenter__())
        try:
            runner.run(call())
            yield lambda: runner.run(by_tasks([call] * clients, count))
        finally:
            runner.run(connecting.__aexit__(None, None, None))


def _program(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, timeout=60)
    _expect(done.returncode, done.stdout)


def _expect(status: int | None, output: bytes) -> None:
    expect_status(status)
    expect_output(output, b"")


BENCHMARK = Benchmark(
    name="run-to-end",
    title="Run `true` to its end",
    about="From the call to the exit status. rexec reserves, starts and records each run durably, with its syncs.",
    cases=cases,
    pictured=(ONE, MANY),
    goals=(
        Goal(
            "p50 with 1 client, of OpenSSH's with ControlMaster",
            Cell(ONE, names.REXEC, "p50"), "at most", 0.5, (Cell(ONE, names.MASTER, "p50"),),
        ),
        Goal(
            "rate with 16 clients, of ControlMaster's at its best",
            Cell(MANY, names.REXEC, "rate"), "at least", 2.0,
            (Cell(ONE, names.MASTER, "rate"), Cell(MANY, FOUR_MASTERS, "rate"), Cell(MANY, names.MASTER, "rate")),
        ),
        Goal(
            "p50 with 1 client, of asyncssh's",
            Cell(ONE, names.REXEC, "p50"), "at most", 1.0, (Cell(ONE, names.ASYNCSSH, "p50"),),
        ),
    ),
)  # fmt: skip
