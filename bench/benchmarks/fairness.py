"""Another caller's Poll and Exec, while one caller does all that it can to a server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from bench.candidates.noop import NoopServer
from bench.candidates.production import ProductionServer
from bench.candidates.rexec import CHANNEL_OPTIONS, RexecServer
from bench.files import limit
from bench.lab import Lab, end
from bench.load import latencies
from bench.made import LabelledServer, LiveServer, PiecesServer
from bench.model import Benchmark, Candidate, Case, Cell, Goal, Metric, Opened, Sample, Size
from bench.neighbour import EXEC, METADATA, NOOP, POLL, Metadata, Neighbour, Times, neighbour
from bench.processes import rss
from bench.verify import Wrong

CASE = "another caller's calls"
NOTHING = "no load"
ROUNDS = 3
# A runner has three descriptors of each execution that it did not start itself. 10,000 of them need 32,000.
LIVE = min(10_000, max(0, limit() - 2_000) // 3 // 1_000 * 1_000)
OVER_P50, OVER_P99, GROWTH = "p50 over no-op", "p99 over no-op", "memory growth"
# When memory counts as settled: nothing was given back for so many seconds, but for these many bytes.
SETTLED_AFTER, LITTLE = 2.5, 1_000_000
MOST_P50, MOST_P99, MOST_GROWTH = 50, 250, 20


class Ground(NamedTuple):
    """A server, how the neighbour reaches it, and what the load's program is told."""

    pid: int
    channel: grpc.Channel
    metadata: Metadata
    arguments: Sequence[str]


Open = Callable[[Lab, Size], Iterator[Ground]]


def _ground(server: RexecServer, *arguments: str) -> Ground:
    channel = grpc.insecure_channel(server.target, options=CHANNEL_OPTIONS)
    return Ground(server.pid, channel, METADATA, (server.target, *arguments))


def _plain(lab: Lab, _: Size) -> Iterator[Ground]:
    with lab.own(RexecServer, "--no-gateway") as server:
        yield _ground(server)


def _open_to_strangers(lab: Lab, _: Size) -> Iterator[Ground]:
    """Let the flood come to the listener for tokens, while the neighbour has a certificate."""
    with lab.own(ProductionServer) as server:
        yield Ground(server.pid, server.channel(), (), (server.open_target, str(server.directory / "ca.pem")))


def _with_pieces(lab: Lab, size: Size) -> Iterator[Ground]:
    with lab.own(PiecesServer, size.pick(1_000_000, 1_000_000, 10_000)) as server:
        yield _ground(server, server.exec_id)


def _with_labels(lab: Lab, size: Size) -> Iterator[Ground]:
    with lab.own(LabelledServer, size.pick(10_000, 2_000, 100)) as server:
        yield _ground(server)


def _with_many_alive(lab: Lab, size: Size) -> Iterator[Ground]:
    with lab.own(LiveServer, size.pick(LIVE, min(LIVE, 2_000), 100)) as server:
        yield _ground(server)


@dataclass(frozen=True)
class Loaded:
    """A row: its name, the load's in bench.loads (empty for none), and the server that it is for."""

    row: str
    load: str
    open: Open = field(default=_plain)


LOADS = (
    Loaded(NOTHING, ""),
    Loaded("8 `yes`, 300 stalled followers", "stalled"),
    Loaded("60 readers of a command that writes 1 MB/s", "readers"),
    Loaded("60 who take 1 MB/s of a `yes`", "slow-readers"),
    Loaded("100 Exec calls at any time", "starts"),
    Loaded("calls with 200,000 elements", "elements"),
    Loaded("a log of a million pieces, read in every way", "logs", _with_pieces),
    Loaded("List with 32 labels over 10,000", "labels", _with_labels),
    Loaded("header floods without a credential", "headers", _open_to_strangers),
    Loaded(f"{LIVE:,} live executions", "", _with_many_alive),
)
METRICS = (
    Metric(OVER_P50, "ms"),
    Metric(OVER_P99, "ms"),
    *(Metric(f"{call} {percent}", "ms") for call in (POLL, EXEC, NOOP) for percent in ("p50", "p99")),
    Metric("memory after round 2", "MB"),
    Metric(GROWTH, "%"),
)


def cases(size: Size) -> Sequence[Case]:
    candidates = tuple(Candidate(loaded.row, _opened(loaded, size)) for loaded in LOADS)
    return (Case(CASE, METRICS, candidates, NOTHING, warm_up=False),)


def _opened(loaded: Loaded, size: Size) -> Callable[[Lab], Opened]:
    """Start a server for each turn, so that no row waits for its turn beside the others' servers."""

    @contextmanager
    def opened(lab: Lab) -> Iterator[Callable[[], Sample]]:
        yield lambda: _turn(lab, loaded, size)

    return opened


def _turn(lab: Lab, loaded: Loaded, size: Size) -> Sample:
    """Run three rounds of the load on one server; take its memory when each is over."""
    times: Times = {NOOP: [], POLL: [], EXEC: []}
    memory = []
    with (
        contextmanager(loaded.open)(lab, size) as ground,
        neighbour(ground.channel, lab.get(NoopServer).target, ground.metadata) as caller,
    ):
        for _ in range(ROUNDS):
            for call, taken in _round(loaded.load, ground, caller, size).items():
                times[call] += taken
            memory.append(_settled(ground.pid))
    return _sample(times, memory)


def _round(load: str, ground: Ground, caller: Neighbour, size: Size) -> Times:
    with _load(load, ground.arguments):
        return caller.measure(size.pick(3_000, 700, 100) / 1e3, size.pick(5, 2, 1))


def _settled(pid: int) -> int:
    """Return the memory of a server that is no longer loaded, in bytes: when it has not shrunk for some seconds."""
    least, since = rss(pid), time.monotonic()
    while time.monotonic() < since + SETTLED_AFTER:
        time.sleep(0.1)
        if rss(pid) < least - LITTLE:
            least, since = rss(pid), time.monotonic()
    return least


@contextmanager
def _load(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """Keep the load going for the time of the block."""
    if not name:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.loads", name, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise Wrong(f"the load {name!r} did not begin")
        yield
        process.stdin.close()
        process.wait(30)
    finally:
        end(process)


def _sample(times: Times, memory: Sequence[int]) -> Sample:
    found = {call: latencies(taken) for call, taken in times.items()}
    sample = {f"{call} {name}": value for call, both in found.items() for name, value in both.items()}
    for name, over in (("p50", OVER_P50), ("p99", OVER_P99)):
        sample[over] = max(found[POLL][name], found[EXEC][name]) - found[NOOP][name]
    _, second, third = memory
    return sample | {"memory after round 2": second / 1e6, GROWTH: (third / second - 1) * 100}


def _goals(row: str) -> Sequence[Goal]:
    return (
        Goal(f"p50, {row}", Cell(CASE, row, OVER_P50), "at most", MOST_P50, unit="ms"),
        Goal(f"p99, {row}", Cell(CASE, row, OVER_P99), "at most", MOST_P99, unit="ms"),
        Goal(f"memory growth, {row}", Cell(CASE, row, GROWTH), "at most", MOST_GROWTH, unit="%"),
    )


BENCHMARK = Benchmark(
    name="fairness",
    title="One caller's load, and another's calls",
    about="One caller loads the server as the row says; another one, with a connection of its own, polls its running "
    "command and starts others, and calls a gRPC server that does nothing, in turn. `over no-op` is the larger of "
    "Poll's and Exec's, less the no-op's. Each turn is three rounds on one server; growth is the server's resident "
    "memory after the third over that after the second.",
    cases=cases,
    repetitions=5,
    goals=tuple(goal for loaded in LOADS[1:] for goal in _goals(loaded.row)),
)
