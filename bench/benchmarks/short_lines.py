"""Millions of short lines, from commands that flush in blocks and from one that flushes each line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from bench.candidates import names, transfers
from bench.candidates.transfers import Opener
from bench.lab import Lab
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Size, Turn
from bench.verify import Checksum

SEQ, BLOCKS, EACH = "10 M lines, seq", "10 M lines, Python flushing in blocks", "1 M lines, each flushed"
PIPE = "the command | cat (limit)"
_PYTHON = "import sys\nfor number in range(1, int(sys.argv[1]) + 1): sys.stdout.write(f'{number}\\n')"
_FLUSHING = "import sys\nfor number in range(1, int(sys.argv[1]) + 1): print(number, flush=True)"


def cases(size: Size) -> Sequence[Case]:
    many, fewer = size.pick(10_000_000, 1_000_000, 10_000), size.pick(1_000_000, 50_000, 1_000)
    return (
        _case(SEQ, ["seq", str(many)], many),
        _case(BLOCKS, [sys.executable, "-c", _PYTHON, str(many)], many),
        _case(EACH, [sys.executable, "-c", _FLUSHING, str(fewer)], fewer),
    )


def _case(name: str, command: Sequence[str], lines: int) -> Case:
    openers = (
        (names.REXEC, transfers.library, False),
        (names.REXEC_RAW, transfers.raw, False),
        (names.SSH, transfers.ssh, False),
        (names.MASTER, transfers.master, False),
        (names.ASYNCSSH, transfers.asyncssh, True),
        (names.NAIVE, transfers.naive, True),
        (PIPE, transfers.pipe, False),
    )
    candidates = tuple(_candidate(name, opener, command, lines, once) for name, opener, once in openers)
    return Case(name, (Metric("time", "s"),), candidates, PIPE, warm_up=False)


def _candidate(name: str, opener: Opener, command: Sequence[str], lines: int, once: bool) -> Candidate:
    @contextmanager
    def opened(lab: Lab) -> Iterator[Turn]:
        with opener(lab, command) as transfer:

            def turn() -> dict[str, float]:
                check = Checksum(*_expected(lines))
                begun = time.perf_counter()
                transfer(check.feed)
                taken = time.perf_counter() - begun
                check.finish()
                return {"time": taken}

            yield turn

    return Candidate(name, opened, once)


@cache
def _expected(lines: int) -> tuple[int, int]:
    """Size and CRC-32 of the numbers from 1, a line each."""
    with subprocess.Popen(["seq", str(lines)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        size = crc = 0
        while piece := os.read(process.stdout.fileno(), 1 << 20):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc


BENCHMARK = Benchmark(
    name="short-lines",
    title="Many short lines",
    about="The numbers from 1, a line each, until the client has the last one and the exit status.",
    cases=cases,
    pictured=(SEQ, EACH),
    goals=(
        Goal(
            "seq, of the same piped to cat",
            Cell(SEQ, names.REXEC, "time"), "at most", 1.3, (Cell(SEQ, PIPE, "time"),),
        ),
        Goal(
            "Python flushing in blocks, of the same piped to cat",
            Cell(BLOCKS, names.REXEC, "time"), "at most", 1.3, (Cell(BLOCKS, PIPE, "time"),),
        ),
    ),
)  # fmt: skip
