"""Followers that may be killed: a process of their own, which reads some of the executions beside their callers."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from tests.torture.plant import CALLER, PATIENCE_SECONDS, Plant
from tests.torture.program import Program
from tests.torture.workload import Task
from tests.waiting import eventually


class Followers:
    """`give` them a task; `finish` waits until they have seen the end of each, and tells what was wrong."""

    def __init__(self, plant: Plant, share: float) -> None:
        self._every = round(1 / share)
        self._directory = plant.ground.path / "followed"
        self._directory.mkdir()
        target = plant.proxy.address
        arguments = [sys.executable, "-m", "tests.torture.follower", target, CALLER, str(self._directory)]
        self.program = Program("follower", arguments, plant.ground.path / "follower.log")

    def give(self, task: Task) -> None:
        if task.number % self._every == 0:
            file = self._directory / f"{task.number}.new"
            file.write_text(task.to_json())
            file.rename(file.with_suffix(".task"))

    def finish(self) -> list[str]:
        with suppress(AssertionError):
            eventually(lambda: not self._waiting(), within=PATIENCE_SECONDS)
        faults = [f"t{file.stem}: its follower has not seen its end" for file in self._waiting()]
        for done in self._directory.glob("*.done"):
            faults += [f"t{done.stem}, followed: {line}" for line in done.read_text().splitlines()]
        return faults

    def close(self) -> None:
        self.program.stop()

    def _waiting(self) -> list[Path]:
        return [file for file in self._directory.glob("*.task") if not file.with_suffix(".done").exists()]
