"""`rexec run true`, the whole process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.candidates import names, rexec
from bench.candidates.openssh import Master, Sshd
from bench.lab import Lab
from bench.load import by_one
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Opened, Size, Turn
from bench.verify import expect_output, expect_status

CASE = "`true`, one process for each"
IMPORT, PASS = "python -c 'import grpc' (limit)", "python -c pass (limit)"
Commands = Callable[[Lab], Iterator[Sequence[str]]]


def _rexec(lab: Lab) -> Iterator[Sequence[str]]:
    yield rexec.cli(lab.get(rexec.RexecServer).target, "run", "--", "true")


def _ssh(lab: Lab) -> Iterator[Sequence[str]]:
    yield lab.get(Sshd).command("true")


def _master(lab: Lab) -> Iterator[Sequence[str]]:
    with Master(lab.get(Sshd)) as master:
        yield master.command("true")


def _fixed(*command: str) -> Commands:
    return lambda _: iter([command])


def cases(size: Size) -> Sequence[Case]:
    count = size.pick(20, 5, 2)
    commands = (
        (names.REXEC_CLI, _rexec),
        (names.SSH, _ssh),
        (names.MASTER, _master),
        (IMPORT, _fixed(sys.executable, "-c", "import grpc")),
        (PASS, _fixed(sys.executable, "-c", "pass")),
    )
    candidates = tuple(Candidate(name, _opened(command, count)) for name, command in commands)
    return (Case(CASE, (Metric("p50", "ms"), Metric("p99", "ms")), candidates, names.SSH),)


def _opened(commands: Commands, count: int) -> Callable[[Lab], Opened]:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        for command in commands(lab):
            yield lambda command=command: by_one(lambda: _run(command), count)

    return opened


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    expect_status(done.returncode)
    expect_output(done.stdout, b"")


BENCHMARK = Benchmark(
    name="command-line",
    title="The command line, from its start to its end",
    about="`rexec run -- true` beside `ssh HOST true`. The limits are what Python itself and its gRPC take to start.",
    cases=cases,
    pictured=(CASE,),
    goals=(
        Goal(
            "p50, of a new ssh connection",
            Cell(CASE, names.REXEC_CLI, "p50"), "at most", 0.5, (Cell(CASE, names.SSH, "p50"),),
        ),
        Goal(
            "p50, of ssh with ControlMaster",
            Cell(CASE, names.REXEC_CLI, "p50"), "at most", 1.0, (Cell(CASE, names.MASTER, "p50"),),
        ),
    ),
)  # fmt: skip
