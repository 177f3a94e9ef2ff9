"""One run of the torture: callers and chaos at once, then a look at everything, and the verdict."""

from __future__ import annotations

import queue
import random
import sqlite3
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.torture.caller import Caller
from tests.torture.chaos import Chaos
from tests.torture.followers import Followers
from tests.torture.gateway import check_gateway
from tests.torture.ground import Ground
from tests.torture.harm import Harm
from tests.torture.leftovers import Baseline, find_leftovers
from tests.torture.observation import Observation
from tests.torture.pace import Pace
from tests.torture.plant import Plant
from tests.torture.reading import Reading
from tests.torture.schedule import make_schedule
from tests.torture.table import render
from tests.torture.verdict import Verdict, judge
from tests.torture.workload import Task, make_tasks

# The spool is on a disk that has room for all, but when it is filled on purpose.
DISK_BYTES, DISK_BYTES_PER_EXECUTION = 64 << 20, 256 << 10
CHAOS_THREADS = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a seed is used for."""

    seed: int
    executions: int
    kills: int
    at_once: int = 12
    followed: float = 0.25  # the share that a follower reads too


class Trial:
    """`run` returns whether all was as it must be; `table` and `faults` say what was."""

    def __init__(self, settings: Settings, keep: Path) -> None:
        self._settings = settings
        self._keep = keep
        chance = random.Random(f"plant {settings.seed}")
        self._own_runner = chance.random() < 0.5
        self._cgroup = not self._own_runner or chance.random() < 0.5
        self._harm = Harm()
        self._seen: list[Observation] = []
        self._verdicts: list[Verdict] = []
        self.faults: list[str] = []
        self._began = time.monotonic()

    def run(self) -> bool:
        """Keeps everything in the directory for that when something was not as it must be."""
        settings = self._settings
        ground = Ground(DISK_BYTES + settings.executions * DISK_BYTES_PER_EXECUTION)
        try:
            self._run_on(ground)
        except BaseException as error:
            self.faults.append(f"the run ended with {type(error).__name__}: {error}")
            raise
        finally:
            if self.faults:
                self._keep_evidence(ground)
            ground.close()
        return not self.faults

    def _run_on(self, ground: Ground) -> None:
        most = self._settings.at_once * 4
        plant = Plant(ground, own_runner=self._own_runner, cgroup=self._cgroup, most_running=most)
        try:
            plant.wait_until_ready()
            baseline = Baseline(plant)
            followers = Followers(plant, self._settings.followed)
            try:
                self._work(plant, followers)
                self.faults += followers.finish()
            finally:
                followers.close()
            plant.restart_server()
            plant.wait_until_ready()
            self._look_again(plant)
            self.faults += check_gateway(plant, self._seen)
            self._judge(plant)
            self.faults += find_leftovers(plant, baseline)
        finally:
            plant.close()

    def _work(self, plant: Plant, followers: Followers) -> None:
        """Callers do all tasks, while the acts come as the work goes on."""
        settings = self._settings
        tasks = _queue(make_tasks(settings.seed, settings.executions, daemons=_has_cgroup(plant)))
        pace = Pace(make_schedule(settings.seed, settings.kills), settings.executions)
        chaos = Chaos(plant, followers.program, self._harm, pace)
        with ThreadPoolExecutor(settings.at_once + CHAOS_THREADS) as pool:
            hurting = [pool.submit(_hurt, chaos, pace) for _ in range(CHAOS_THREADS)]
            calling = [pool.submit(self._call, plant, followers, tasks, pace) for _ in range(settings.at_once)]
            try:
                _results(calling)
            except BaseException:
                _empty(tasks)  # broken off: what runs is the last
                raise
            finally:
                pace.end()
            _results(hurting)

    def _call(self, plant: Plant, followers: Followers, tasks: queue.SimpleQueue[Task], pace: Pace) -> None:
        with closing(Caller(plant)) as caller:
            while True:
                pace.wait_for_acts()
                try:
                    task = tasks.get_nowait()
                except queue.Empty:
                    return
                self._seen.append(caller.run(task, followers.give))
                pace.note_ended()

    def _look_again(self, plant: Plant) -> None:
        """Reads every execution once more, through a server that has just started."""
        with plant.client() as client:
            for seen in self._seen:
                if seen.execution is None:
                    continue
                seen.again = Reading(seen.task)
                with client.attach(seen.task.exec_id).output(since=0, gaps=True) as stream:
                    for piece in stream:
                        seen.again.take(piece)
                    seen.last = stream.execution
                seen.again.finish(seen.last)

    def _judge(self, plant: Plant) -> None:
        names = _names(plant)
        for seen in self._seen:
            seen.name = names.get(seen.task.exec_id, "")
            seen.runs = _count_lines(plant.witnesses / seen.task.exec_id)
            verdict = judge(seen, self._harm)
            self._verdicts.append(verdict)
            self.faults += [f"{seen.task.exec_id} ({seen.task.kind}, {seen.name}): {fault}" for fault in verdict.faults]

    @property
    def table(self) -> str:
        rows = [(seen.task.kind, verdict.outcome) for seen, verdict in zip(self._seen, self._verdicts, strict=False)]
        readings = [reading for seen in self._seen for reading in (seen.reading, seen.again) if reading]
        facts: list[tuple[str, object]] = [
            ("seed", self._settings.seed),
            ("runner", "a program of its own" if self._own_runner else "started by the server"),
            ("kills", self._harm.kills),
            ("bytes compared", sum(sum(reading.received.values()) for reading in readings)),
            ("seconds", round(time.monotonic() - self._began)),
            *((f"not done: {what}", why) for what, why in sorted(self._harm.skipped.items())),
            *self._reasons(),
            ("faults", len(self.faults)),
        ]
        return render(rows, self._harm.counts(), facts)

    def _reasons(self) -> list[tuple[str, object]]:
        """Why what was not exact was not, and how often."""
        whys = Counter((verdict.outcome, verdict.why) for verdict in self._verdicts if verdict.why)
        return [(f"{count} {outcome}", why) for (outcome, why), count in sorted(whys.items())]

    def _keep_evidence(self, ground: Ground) -> None:
        ground.keep(self._keep)
        texts = {
            "faults": self.faults,
            "deeds": [f"{d.since:.3f} {d.until:.3f} {d.what} {d.pid} {d.execution}" for d in self._harm.deeds],
            "executions": [f"{s.since:.3f} {s.until:.3f} {s.name} {s.task.to_json()}" for s in self._seen],
            "table": [self.table],
        }
        for name, lines in texts.items():
            (self._keep / name).write_text("\n".join(lines) + "\n")


def _hurt(chaos: Chaos, pace: Pace) -> None:
    try:
        while act := pace.next_act():
            chaos.do(act)
    except BaseException:
        pace.end()
        raise


def _queue(items: list[T]) -> queue.SimpleQueue[T]:
    filled: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        filled.put(item)
    return filled


def _empty(filled: queue.SimpleQueue[T]) -> None:
    with suppress(queue.Empty):
        while True:
            filled.get_nowait()


def _results(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


def _has_cgroup(plant: Plant) -> bool:
    with plant.client() as client:
        return "cgroup" in client.info().features


def _names(plant: Plant) -> dict[str, str]:
    """The spool's names of all executions, from the index."""
    with closing(sqlite3.connect(f"file:{plant.state_dir}/index.sqlite?mode=ro", uri=True)) as index:
        return dict(index.execute("SELECT exec_id, name FROM execution"))


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
