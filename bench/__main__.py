"""`make bench`: rexec beside the physical limit, as ratios within one run.

Candidates take turns inside each repetition, so that a slow phase of the machine hits all of them. An absolute time
from a shared machine means little; a ratio from one run means something.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rexec_client import Client
from tests.servers import Server

Candidate = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15, help="how often each candidate has its turn")
    options = parser.parse_args()
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory) / "state")
        try:
            with Client(server.target) as client:
                measure("run `true` to its end", run_candidates(client), options.repetitions)
                measure("256 MB of output to the client", stream_candidates(client), max(3, options.repetitions // 5))
        finally:
            server.close()


def run_candidates(client: Client) -> dict[str, Candidate]:
    def local() -> None:
        for _ in range(20):
            assert subprocess.run(["true"], check=False).returncode == 0

    def remote() -> None:
        for _ in range(20):
            assert client.run(["true"]).returncode == 0

    return {"subprocess.run": local, "rexec": remote}


def stream_candidates(client: Client) -> dict[str, Candidate]:
    size = 256 * 1024 * 1024
    command = ["head", "-c", str(size), "/dev/zero"]

    def local() -> None:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert sum(len(data) for data in iter(lambda: process.stdout.read(256 * 1024), b"")) == size

    def remote() -> None:
        handle = client.start(command, max_output=size * 2)
        with handle.output() as chunks:
            assert sum(len(chunk.data) for chunk in chunks) == size

    return {"a local pipe": local, "rexec, kept in the log": remote}


def measure(title: str, candidates: dict[str, Candidate], repetitions: int) -> None:
    """Prints medians, and their ratio to the first candidate."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 1):
        for name, candidate in candidates.items():
            begun = time.perf_counter()
            candidate()
            if repetition:  # the first one warms up
                times[name].append(time.perf_counter() - begun)
    reference = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"  {name:24} {median:8.3f} s   ({spread})   x {median / reference:.2f}")


if __name__ == "__main__":
    main()
