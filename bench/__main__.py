"""`make bench`: rexec beside what people would use instead.

Candidates take turns inside each repetition, so that a slow phase of the machine meets all of them. An absolute time
from a shared machine means little; a ratio from one run means something.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from bench import machine, picture, profile, report, table
from bench.benchmarks import (
    command_line,
    fairness,
    fan_out,
    growth,
    memory,
    poll,
    replay,
    run_to_end,
    short_lines,
    stdin,
    stream,
    wake_up,
)  # fmt: skip
from bench.lab import Lab, lab
from bench.model import Benchmark, Size, Skipped
from bench.results import Result
from bench.turns import measure

RESULTS = Path("bench/results")
PAGE = Path("docs/performance.md")
PICTURES = [Path("docs/images/performance.svg"), Path("docs/images/performance.png")]
REPORT, PROFILE = "report", "profile"
_WHAT = "only these: {names}; or `report`: write the page and the picture; or `profile`: where the time goes"


def main() -> None:
    every = all_benchmarks()
    options = _parse(every)
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # we start programs beside live channels; see rexec_server.cli
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started ends with us
    console = Console(highlight=False, width=None if os.isatty(1) else 160)
    try:
        if options.names == [REPORT]:
            _report(every, options)
        elif options.names == [PROFILE]:
            with lab(options.directory, durable=options.size != Size.SHORTEST) as opened:
                profile.show(opened, options.size, console)
        else:
            _measure(every, options, console)
    except (Skipped, report.NothingToReport, ValueError) as error:
        raise SystemExit(f"bench: {error}") from None


def _report(every: dict[str, Benchmark], options: argparse.Namespace) -> None:
    results = report.load(options.results, every)
    report.write(PAGE, results, every)
    picture.draw(PICTURES, results, every)


def _measure(every: dict[str, Benchmark], options: argparse.Namespace, console: Console) -> None:
    chosen = [benchmark for name, benchmark in every.items() if not options.names or name in options.names]
    # What is not the whole comparison must not take its place.
    whole = options.size == Size.FULL and not options.candidates
    results = options.results if whole else options.results / options.size
    begun = time.monotonic()
    with lab(options.directory, durable=options.size != Size.SHORTEST) as opened:
        for benchmark in chosen:
            result = run(benchmark, opened, options, console)
            table.show(result, benchmark, console)
            result.save(results)
    if options.report and whole:
        _report(every, options)
    console.print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes in all")


def all_benchmarks() -> dict[str, Benchmark]:
    """By name, in the order in which they run and are shown."""
    modules = (
        run_to_end, stream, stdin, replay, short_lines, wake_up, fan_out, poll, memory, command_line, growth, fairness,
    )  # fmt: skip
    return {module.BENCHMARK.name: module.BENCHMARK for module in modules}


def run(benchmark: Benchmark, lab: Lab, options: argparse.Namespace, console: Console) -> Result:
    """One benchmark, all of its cases."""
    begun = time.monotonic()
    with console.status(f"{benchmark.name}: starts") as status:

        def tell(text: str) -> None:
            status.update(f"{benchmark.name}: {text}")

        cases = [case.with_only(options.candidates) for case in benchmark.cases(options.size)]
        repetitions = options.repetitions or benchmark.repetitions
        measured = [measure(case, lab, repetitions, tell) for case in cases]
    seconds = round(time.monotonic() - begun, 1)
    return Result(
        benchmark.name, options.size, repetitions, seconds, machine.describe(lab.directory), measured
    )  # fmt: skip


def _parse(every: dict[str, Benchmark]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="rexec beside what people would use instead.")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=_WHAT.format(names=", ".join(every)))
    add("--short", action="store_true", help="less of everything: a minute for each, or less")
    add("--size", type=Size, default=Size.FULL, help=argparse.SUPPRESS)
    add("--repetitions", type=int, metavar="N", help="how often each has its turn (3; fairness 5)")
    add(
        "--candidate", dest="candidates", action="append", default=[], metavar="TEXT",
        help="only candidates with TEXT in their name, and the reference; may be repeated",
    )  # fmt: skip
    add("--report", action="store_true", help="afterwards write the page and the picture, if it was the whole")
    add("--results", type=Path, default=RESULTS, metavar="DIR", help=f"where results are kept ({RESULTS})")
    add("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a disk to write on (/var/tmp)")
    options = parser.parse_args()
    for name in options.names:
        if name not in every and options.names not in ([REPORT], [PROFILE]):
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(every)}")
    if options.repetitions is not None and options.repetitions < 1:
        parser.error("--repetitions: at least 1")
    if options.short:
        options.size = Size.SHORT
    return options


if __name__ == "__main__":
    main()
