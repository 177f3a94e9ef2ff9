"""1 GB into a command's standard input, beside what comes out of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.benchmarks import stream
from bench.candidates import feeds, names, transfers
from bench.candidates.big_file import big_file
from bench.lab import Lab
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Size, Turn

CASE = "1 GB, in"
OUT = "rexec, client library, 1 GB out"
OUT_CLI = "rexec, command line, 1 GB out"
PIPE = "cat | cmp (limit)"


def candidate(name: str, opener: feeds.Opener, size: int) -> Candidate:
    """Return a candidate that feeds the whole file to the command, which compares each byte."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with opener(lab, big_file(lab, size)) as feed:

            def turn() -> dict[str, float]:
                begun = time.perf_counter()
                feed()
                return {"rate": size / 1e6 / (time.perf_counter() - begun)}

            yield turn

    return Candidate(name, opened)


def cases(size: Size) -> Sequence[Case]:
    length = size.pick(1_000, 100, 5) * 1_000_000
    openers = (
        (names.REXEC, feeds.library),
        (names.REXEC_CLI, feeds.command_line),
        (names.SSH, feeds.ssh),
        (names.SSH_GCM, feeds.ssh_gcm),
        (PIPE, feeds.pipe),
    )
    candidates = [candidate(name, opener, length) for name, opener in openers]
    candidates.append(stream.candidate(OUT, transfers.library, length))
    candidates.append(stream.candidate(OUT_CLI, transfers.command_line, length))
    return (Case(CASE, (stream.RATE,), tuple(candidates), OUT, warm_up=False),)


BENCHMARK = Benchmark(
    name="stdin",
    title="1 GB into a command",
    about="`cmp` of standard input with a file in the page cache, from the start to its exit status. The last two rows"
    " are the same file on its way out.",
    cases=cases,
    goals=(
        Goal(
            "into a command, of what comes out of one",
            Cell(CASE, names.REXEC, "rate"), "at least", 1 / 3, (Cell(CASE, OUT, "rate"),),
        ),
        Goal(
            "the command line's, of what comes out of it",
            Cell(CASE, names.REXEC_CLI, "rate"), "at least", 1 / 3, (Cell(CASE, OUT_CLI, "rate"),),
        ),
    ),
)  # fmt: skip
