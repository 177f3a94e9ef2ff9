"""1 GB of a finished command, from its first byte."""

from __future__ import annotations

from collections.abc import Sequence

from bench.benchmarks.stream import PIPE, RATE, SOCKET, candidate
from bench.candidates import names, transfers
from bench.model import Benchmark, Case, Cell, Goal, Size

CASE = "1 GB, finished"


def cases(size: Size) -> Sequence[Case]:
    length = size.pick(1_000, 100, 5) * 1_000_000
    openers = (
        (names.REXEC, transfers.library_replay),
        (names.REXEC_PRODUCTION, transfers.production_replay),
        (names.REXEC_RAW, transfers.raw_replay),
        (names.SSH, transfers.ssh),
        (names.SSH_GCM, transfers.ssh_gcm),
        (PIPE, transfers.pipe),
        (SOCKET, transfers.raw_socket),
    )
    candidates = tuple(candidate(name, opener, length) for name, opener in openers)
    return (Case(CASE, (RATE,), candidates, names.SSH, warm_up=False),)


BENCHMARK = Benchmark(
    name="replay",
    title="1 GB of a finished command",
    about="rexec reads its log; ssh, which has none, is given a file to `cat`.",
    cases=cases,
    pictured=(CASE,),
    goals=(
        Goal(
            "plain, of OpenSSH's default",
            Cell(CASE, names.REXEC, "rate"), "at least", 4.0, (Cell(CASE, names.SSH, "rate"),),
        ),
    ),
)  # fmt: skip
