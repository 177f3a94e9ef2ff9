"""1 GB from a running command to its client, while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.candidates import names, transfers
from bench.candidates.big_file import big_file, pattern
from bench.candidates.transfers import Opener
from bench.lab import Lab
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Size, Turn

CASE = "1 GB, live"
PIPE = "cat | cat (limit)"
SOCKET = "raw loopback socket (limit)"
RATE = Metric("rate", "MB/s", "higher")


def candidate(name: str, opener: Opener, size: int, *, once: bool = False) -> Candidate:
    """One that brings the whole file to its client, each byte verified."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with opener(lab, ["cat", str(big_file(lab, size))]) as transfer:

            def turn() -> dict[str, float]:
                check = pattern(size)
                begun = time.perf_counter()
                transfer(check.feed)
                taken = time.perf_counter() - begun
                check.finish()
                return {"rate": size / 1e6 / taken}

            yield turn

    return Candidate(name, opened, once)


def cases(size: Size) -> Sequence[Case]:
    length = size.pick(1_000, 100, 5) * 1_000_000
    openers = (
        (names.REXEC, transfers.library),
        (names.REXEC_PRODUCTION, transfers.production),
        (names.REXEC_RAW, transfers.raw),
        (names.REXEC_CLI, transfers.command_line),
        (names.SSH, transfers.ssh),
        (names.SSH_GCM, transfers.ssh_gcm),
        (PIPE, transfers.pipe),
        (SOCKET, transfers.raw_socket),
    )
    slow = ((names.ASYNCSSH, transfers.asyncssh), (names.PARAMIKO, transfers.paramiko))
    candidates = [candidate(name, opener, length) for name, opener in openers]
    candidates += [candidate(name, opener, length, once=True) for name, opener in slow]
    return (Case(CASE, (RATE,), tuple(candidates), names.SSH, warm_up=False),)


BENCHMARK = Benchmark(
    name="stream",
    title="1 GB of a running command",
    about="`cat` of a file in the page cache. rexec keeps all of it in its log on the disk; the others keep nothing.",
    cases=cases,
    pictured=(CASE,),
    goals=(
        Goal(
            "plain, of OpenSSH's default",
            Cell(CASE, names.REXEC, "rate"), "at least", 2.5, (Cell(CASE, names.SSH, "rate"),),
        ),
        Goal(
            "TLS, of OpenSSH's default",
            Cell(CASE, names.REXEC_PRODUCTION, "rate"), "at least", 2.5, (Cell(CASE, names.SSH, "rate"),),
        ),
    ),
)  # fmt: skip
