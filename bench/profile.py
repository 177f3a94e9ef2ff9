"""`python -m bench profile`: where the processor's time goes, for each run and for each GB."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from bench.candidates import rexec, transfers
from bench.candidates.big_file import big_file, pattern
from bench.lab import Lab
from bench.model import Size
from bench.processes import cpu_seconds
from bench.table import number
from rexec_client import Client

Seconds = Mapping[str, float]
_COLUMNS = ("client", "server", "runner, shims and command")


def show(lab: Lab, size: Size, console: Console) -> None:
    """A table: for each kind of work, what each of our processes used for it."""
    runs, length = size.pick(500, 100, 5), size.pick(1_000, 100, 5) * 1_000_000
    path = str(big_file(lab, length))
    table = Table("processor time", *_COLUMNS, box=None, pad_edge=False)
    with lab.own(rexec.RexecServer, "--no-gateway") as server, rexec.client(server) as client:
        client.run(["true"])

        def row(name: str, unit: str, per: float, work: Callable[[], object]) -> None:
            used = _used(server, work)
            table.add_row(f"{name}, {unit}", *(number(used[column] * per) for column in _COLUMNS))

        row("`true` to its end", "ms each", 1e3 / runs, lambda: _many(client, runs))
        row("a running command's output", "s/GB", 1e9 / length, lambda: _live(client, path, length))
        handle = client.start(["cat", path], max_output=transfers.KEPT)
        handle.wait(120)
        row("a finished command's output", "s/GB", 1e9 / length, lambda: _replay(client, handle.exec_id, length))
        row("Poll, 3 lines", "ms each", 1e3 / runs, lambda: [handle.poll(tail_lines=3) for _ in range(runs)])
    console.print(table)


def _used(server: rexec.RexecServer, work: Callable[[], object]) -> Seconds:
    before = _now(server)
    work()
    return {name: seconds - before[name] for name, seconds in _now(server).items()}


def _now(server: rexec.RexecServer) -> Seconds:
    """The runner's includes those shims, and their commands, that have ended."""
    return dict(
        zip(_COLUMNS, (cpu_seconds([pid]) for pid in (os.getpid(), server.pid, server.runner_pid)), strict=True)
    )


def _many(client: Client, runs: int) -> None:
    for _ in range(runs):
        client.run(["true"], check=True)


def _live(client: Client, path: str, length: int) -> None:
    check = pattern(length)
    transfers.follow_live(client, ["cat", path], check.feed)
    check.finish()


def _replay(client: Client, exec_id: str, length: int) -> None:
    check = pattern(length)
    transfers.follow_finished(client, exec_id, check.feed)
    check.finish()
