"""The power is cut, again and again, while commands run: what was told is true afterwards, and no hand is needed.

`REXEC_SEED=N` repeats a run's chances; the instants of the cuts are the machine's.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.crash import power
from tests.rpc.calls import duration, ended
from tests.servers import Server
from tests.waiting import eventually

WORKERS = 3
CUTS = 3
LOSSES_OF_EACH = 1
# What a command does first is to say that it runs; then it writes, some of it on standard error, and ends or waits.
SCRIPT = """
import os, sys, time
path, seed, wait = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with open(path, "a") as ledger:
    ledger.write("ran\\n")
for number in range(seed % 97):
    os.write(1 + (number % 5 == 0), b"%d of %d %s\\n" % (number, seed, b"x" * (seed % 300)))
    time.sleep(wait / 100)
time.sleep(wait)
sys.exit(seed % 7)
"""


@dataclass
class Seen:
    """What one execution's caller has been told, so far."""

    request: api.ExecRequest
    answered: bool = False
    end: pb.Execution | None = None
    output: list[pb.OutputChunk] = field(default_factory=list)
    deleting: bool = False
    deleted: bool = False


class Callers:
    """Start commands, see some of them to their end, delete a few; and remember what they were told."""

    def __init__(self, server: Server, ledgers: Path, chance: random.Random) -> None:
        self._server = server
        self._ledgers = ledgers
        self._seeds = [chance.randrange(1 << 30) for _ in range(WORKERS)]
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.seen: dict[str, Seen] = {}
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(WORKERS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def told(self) -> dict[str, Seen]:
        """What everybody has been told up to now."""
        with self._lock:
            return {name: replace(seen) for name, seen in self.seen.items()}

    def ran(self, name: str) -> int:
        """How often the command of an execution was started."""
        ledger = self._ledgers / name
        return len(ledger.read_text().splitlines()) if ledger.exists() else 0

    def _work(self, worker: int) -> None:
        chance, stub = random.Random(self._seeds[worker]), self._server.stub
        number = 0
        while not self._over.is_set():
            number += 1
            name = f"{worker}-{number}"
            wait = chance.choice(["0", "0", "0.5", "300"])
            arguments = [sys.executable, "-ISc", SCRIPT, str(self._ledgers / name), str(chance.randrange(10**6)), wait]
            request = api.ExecRequest(exec_id=name, arguments=arguments)
            with self._lock:
                seen = self.seen[name] = Seen(request)
            stub.Exec(request, timeout=60)
            self._tell(seen, answered=True)
            if wait != "300" and chance.random() < 0.8:
                output, end = follow(self._server, name)
                self._tell(seen, end=end, output=output)
                if chance.random() < 0.2:
                    self._tell(seen, deleting=True)
                    stub.Delete(api.DeleteRequest(exec_id=name), timeout=60)
                    self._tell(seen, deleted=True)

    def _tell(self, seen: Seen, **facts: object) -> None:
        with self._lock:
            for name, value in facts.items():
                setattr(seen, name, value)


def follow(server: Server, name: str) -> tuple[list[pb.OutputChunk], pb.Execution]:
    """All that is kept of its output, and its end; every offset is a byte or in a gap, once."""
    chunks, offset = [], 0
    for message in server.stub.Follow(api.FollowRequest(exec_id=name, offset=0), timeout=60):
        for chunk in message.output.chunks:
            assert chunk.offset == offset
            chunks.append(chunk)
            offset += len(chunk.data)
        if message.HasField("gap"):
            assert message.gap.start_offset == offset
            offset = message.gap.end_offset
    assert message.HasField("end")
    assert message.end.log_end_offset == offset
    return chunks, message.end


def bytes_of(chunks: list[pb.OutputChunk]) -> dict[int, tuple[int, int]]:
    """Channel and byte at each offset that is kept."""
    return {chunk.offset + i: (chunk.channel, byte) for chunk in chunks for i, byte in enumerate(chunk.data)}


def tombstones(state_dir: Path) -> set[str]:
    """What is deleted in the whole index: the directories of these may have begun to go, so they are on disk."""
    found: set[str] = set()

    def look(index: sqlite3.Connection) -> bool:
        found.update(row[0] for row in index.execute("SELECT exec_id FROM execution WHERE delete_time > 0"))
        return True

    path = state_dir / "index.sqlite"
    power.in_index(path, path.with_name("index.sqlite-wal").read_bytes(), look)
    return found


def relied_on(told: dict[str, Seen], ran: set[str], gone: set[str]) -> Callable[[sqlite3.Connection], bool]:
    """Whether an index has what was answered and what runs, and no deletion was undone."""
    needed = {name for name, seen in told.items() if seen.answered} | ran
    deleted = {name for name, seen in told.items() if seen.deleted} | gone

    def check(index: sqlite3.Connection) -> bool:
        with suppress(sqlite3.OperationalError):  # so early that there is no table
            rows = dict(index.execute("SELECT exec_id, delete_time FROM execution"))
            return needed <= rows.keys() and all(rows[name] for name in deleted)
        return not needed

    return check


def check_recovered(server: Server, told: dict[str, Seen], ran: set[str], callers: Callers) -> None:
    """Every execution that was answered, or ran, is there once, with the end and the bytes that were told."""
    for name, seen in told.items():
        if not seen.answered and name not in ran:
            continue
        if seen.deleting and deleted(server, seen.request):
            continue
        assert not seen.deleted, name
        assert server.stub.Exec(seen.request, timeout=60).already_existed, name
        ended(server, name, within=60)
        chunks, end = follow(server, name)
        kept = bytes_of(chunks)
        for total in end.totals:
            readable = sum(channel == total.channel for channel, _ in kept.values())
            assert total.bytes_produced == readable + total.bytes_dropped, (name, total)
        if seen.end:
            assert facts(end) == facts(seen.end), name
            assert kept.items() <= bytes_of(seen.output).items(), name
        assert callers.ran(name) <= 1, name


def deleted(server: Server, request: api.ExecRequest) -> bool:
    """Whether the id is one that was used and then deleted."""
    try:
        server.stub.Exec(request, timeout=60)
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.FAILED_PRECONDITION)
    return False


def facts(end: pb.Execution) -> tuple[object, ...]:
    """What of an end cannot change: all but how much of the output is still kept."""
    status = end.WhichOneof("exit_status")
    produced = [(total.channel, total.bytes_produced) for total in end.totals]
    return end.state, end.reason, status and getattr(end, status), end.end_time, end.log_end_offset, produced


def check_bytes_of_lost(recovered: Server, written_by: dict[str, dict[int, tuple[int, int]]]) -> None:
    """Of executions that ran at the cut: what is left of the output is what the command wrote, byte for byte."""
    for name, written in written_by.items():
        for offset, (_, byte) in bytes_of(follow(recovered, name)[0]).items():
            assert written[offset][1] == byte, (name, offset)


def all_output(original: Server, name: str, seen: Seen) -> dict[int, tuple[int, int]]:
    """What its command has written by its end, which comes now unless it was seen to come."""
    if not seen.end:
        original.stub.Cancel(api.CancelRequest(exec_id=name, kill_grace=duration(0)), timeout=60)
        return bytes_of(follow(original, name)[0])
    return bytes_of(seen.output)


@pytest.mark.timeout(600)
def test_what_was_told_survives_a_power_cut(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Answered executions are there, told ends are the same, nothing runs twice, bytes are right or an exact gap."""
    seed = int(os.environ.get("REXEC_SEED") or random.SystemRandom().randrange(1 << 30))
    chance = random.Random(seed)
    original = start_server("--max-running", "1000")
    (tmp_path / "ledgers").mkdir()
    cuts = []
    with Callers(original, tmp_path / "ledgers", chance) as callers:
        for cut in range(CUTS):
            enough = len(callers.told()) + chance.randrange(3, 12)
            eventually(lambda enough=enough: len(callers.told()) >= enough, within=60)
            told = callers.told()
            with power.stopped(original):
                ran = {name for name in callers.told() if callers.ran(name)}
                power.copy(original.state_dir, tmp_path / f"disk-{cut}")
                for name, now in callers.told().items():
                    if name in told:
                        told[name].deleting = now.deleting
            cuts.append((told, ran))
    written = {name: all_output(original, name, seen) for name, seen in callers.told().items()}
    for cut, (told, ran) in enumerate(cuts):
        for loss in range(LOSSES_OF_EACH):
            state_dir = tmp_path / f"after-{cut}-{loss}"
            power.copy(tmp_path / f"disk-{cut}", state_dir)
            try:
                power.lose(state_dir, chance, relied_on(told, ran | tombstones(state_dir), tombstones(state_dir)))
                recovered = start_server("--max-running", "1000", name=state_dir.name)
                check_recovered(recovered, told, ran, callers)
                lost = {name for name, seen in told.items() if seen.answered and not seen.end and not seen.deleting}
                check_bytes_of_lost(recovered, {name: written[name] for name in lost})
                recovered.close()
            except BaseException as error:
                error.add_note(f"REXEC_SEED={seed}, cut {cut}, loss {loss}; the disk is in {state_dir}")
                raise
