"""`make bench`: rexec beside what people would use instead.

Candidates take turns inside each repetition, so that a slow phase of the machine meets all of them. An absolute time
from a shared machine means little; a ratio from one run means something.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import time
from pathlib import Path

from rich.console import Console

from bench import benchmarks, machine, table
from bench.lab import Lab, lab
from bench.model import Benchmark, Size, Skipped
from bench.results import Result
from bench.turns import measure

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    every = all_benchmarks()
    options = _parse(every)
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # we start programs beside live channels; see rexec_server.cli
    console = Console(highlight=False, width=None if os.isatty(1) else 160)
    chosen = [benchmark for name, benchmark in every.items() if not options.names or name in options.names]
    results = options.results if options.size == Size.FULL else options.results / options.size
    begun = time.monotonic()
    try:
        with lab(options.directory) as opened:
            for benchmark in chosen:
                result = run(benchmark, opened, options, console)
                table.show(result, benchmark, console)
                result.save(results)
    except Skipped as error:
        raise SystemExit(f"bench: {error}") from None
    console.print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes in all")


def all_benchmarks() -> dict[str, Benchmark]:
    """By name."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    found = [importlib.import_module(f"bench.benchmarks.{name}").BENCHMARK for name in names]
    return {benchmark.name: benchmark for benchmark in found}


def run(benchmark: Benchmark, lab: Lab, options: argparse.Namespace, console: Console) -> Result:
    """One benchmark, all of its cases."""
    begun = time.monotonic()
    with console.status(f"{benchmark.name}: starts") as status:

        def tell(text: str) -> None:
            status.update(f"{benchmark.name}: {text}")

        cases = [case.with_only(options.candidates) for case in benchmark.cases(options.size)]
        measured = [measure(case, lab, options.repetitions, tell) for case in cases]
    seconds = round(time.monotonic() - begun, 1)
    return Result(
        benchmark.name, options.size, options.repetitions, seconds, machine.describe(lab.directory), measured
    )  # fmt: skip


def _parse(every: dict[str, Benchmark]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="rexec beside what people would use instead.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(every)}")
    parser.add_argument(
        "--short", dest="size", action="store_const", const=Size.SHORT, help="less of everything: a minute for each"
    )
    parser.add_argument("--size", type=Size, default=Size.FULL, help=argparse.SUPPRESS)
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="how often each has its turn (3)")
    parser.add_argument(
        "--candidate", dest="candidates", action="append", default=[], metavar="TEXT",
        help="only candidates with TEXT in their name, and the reference; may be repeated",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are kept")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), metavar="DIR", help="a disk for what is written (/var/tmp)"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in every:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(every)}")
    if options.repetitions < 1:
        parser.error("--repetitions: at least 1")
    return options


if __name__ == "__main__":
    main()
