"""What is done to rexec. Each act is undone before it returns, but for the deaths."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.torture import removal
from tests.torture.harm import Harm
from tests.torture.pace import Pace
from tests.torture.plant import Plant
from tests.torture.program import Program
from tests.torture.scarcity import few_descriptors, no_forks
from tests.torture.schedule import Act

# Victims are waited for so long: a shim lives for a moment only.
VICTIM_SECONDS = 2.0
ATTEMPTS = 3
# From, to: how long something is stopped, and how long something is not to be had.
STOPPED_SECONDS = (0.05, 1.0)
SCARCE_SECONDS = (0.05, 0.5)
# Seconds by which the wall clock is wrong: past every retention, and before every start.
CLOCK_STEPS = (2 * 86400.0, -40 * 365 * 86400.0)


class Chaos:
    """Does acts; from several threads at once, so that they coincide."""

    def __init__(self, plant: Plant, follower: Program, harm: Harm, pace: Pace) -> None:
        self._plant = plant
        self._follower = follower
        self._harm = harm
        self._pace = pace
        self._never = threading.Event()
        self._one_scarcity = threading.Lock()  # each remembers what it took away
        self._acts: dict[str, Callable[[random.Random], None]] = {
            "kill a shim": lambda chance: self._kill_shims(chance, 1),
            "kill two shims": lambda chance: self._kill_shims(chance, 2),
            "kill the runner": lambda _: self._kill("runner", plant.runner_pid),
            "kill the server": lambda _: self._kill_program("server", plant.server),
            "kill the gateway": lambda _: self._kill("gateway", plant.gateway_pid),
            "kill a follower": lambda _: self._kill_program("follower", follower),
            "kill runner and shim": self._kill_runner_and_shim,
            "kill runner and all shims": self._kill_runner_and_shims,
            "kill everything": self._kill_everything,
            "restart everything": lambda _: self._restart(),
            "stop a shim": self._stop_a_shim,
            "stop the runner": lambda chance: self._stop("runner", plant.runner_pid, chance),
            "stop the server": lambda chance: self._stop("server", plant.server.pid, chance),
            "stop the gateway": lambda chance: self._stop("gateway", plant.gateway_pid, chance),
            "stop a follower": lambda chance: self._stop("follower", follower.pid, chance),
            "cut connections": self._cut,
            "hold connections": self._hold,
            "fill the disk": self._fill,
            "take descriptors of the runner": lambda chance: self._take_descriptors("runner", plant.runner_pid, chance),
            "take descriptors of the server": lambda chance: self._take_descriptors("server", plant.server.pid, chance),
            "take process ids": self._take_pids,
            "remove a file": self._remove_a_file,
            "remove a socket": self._remove_a_socket,
            "remove a directory": self._remove_a_directory,
            "step the clock": self._step_the_clock,
        }

    def do(self, act: Act) -> None:
        self._acts[act.what](random.Random(act.seed))

    # --- deaths ---

    def _kill_shims(self, chance: random.Random, count: int) -> None:
        """One may end by itself just before: then it is another's turn."""
        for _ in range(ATTEMPTS):
            shims = sorted(self._await_shims().items())
            for pid, execution in chance.sample(shims, min(count, len(shims))):
                count -= self._kill_shim(pid, execution)
            if not count:
                return

    def _kill_runner_and_shim(self, chance: random.Random) -> None:
        """In one or the other order, with a moment between."""
        shims = sorted(self._await_shims().items())
        deaths: list[Callable[[], object]] = [lambda: self._kill("runner", self._plant.runner_pid)]
        if shims:
            pid, execution = chance.choice(shims)
            deaths.append(lambda: self._kill_shim(pid, execution))
        chance.shuffle(deaths)
        for death in deaths:
            death()
            self._wait(chance.choice([0.0, 0.005, 0.05, 0.5]))

    def _kill_runner_and_shims(self, chance: random.Random) -> None:
        shims = self._await_shims()
        self._kill("runner", self._plant.runner_pid)
        for pid, execution in shims.items():
            self._kill_shim(pid, execution)

    def _kill_everything(self, chance: random.Random) -> None:
        self._kill("gateway", self._plant.gateway_pid)
        self._kill_program("server", self._plant.server)
        self._kill_runner_and_shims(chance)

    def _kill_shim(self, pid: int, execution: str) -> bool:
        """Stopped first, and looked at: it may have ended, and what it forks has its name until the exec."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            if self._plant.shims().get(pid) == execution:
                self._kill("shim", pid, execution)
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def _kill(self, name: str, pid: int, execution: str = "") -> None:
        if pid:
            self._harm.add(f"kill {name}", pid, execution)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _kill_program(self, name: str, program: Program) -> None:
        self._harm.add(f"kill {name}", program.pid)
        program.send(signal.SIGKILL)

    def _restart(self) -> None:
        """As an operator does, all at once."""
        self._harm.add("restart runner", self._plant.runner_pid)
        self._harm.add("restart server", self._plant.server.pid)
        if runner := self._plant.runner_pid:
            with suppress(ProcessLookupError):
                os.kill(runner, signal.SIGTERM)
        with suppress(AssertionError):
            self._plant.restart_server()

    # --- pauses ---

    def _stop_a_shim(self, chance: random.Random) -> None:
        shims = sorted(self._await_shims().items())
        if shims:
            pid, execution = chance.choice(shims)
            self._stop("shim", pid, chance, execution)

    def _stop(self, name: str, pid: int, chance: random.Random, execution: str = "") -> None:
        if not pid:
            return
        with suppress(ProcessLookupError), self._harm.lasting(f"stop {name}", pid, execution):
            os.kill(pid, signal.SIGSTOP)
            self._wait(chance.uniform(*STOPPED_SECONDS))
            os.kill(pid, signal.SIGCONT)

    def _cut(self, chance: random.Random) -> None:
        self._harm.add("cut connections")
        self._plant.proxy.cut(chance)

    def _hold(self, chance: random.Random) -> None:
        with self._harm.lasting("hold connections"):
            self._plant.proxy.stall(True)
            self._wait(chance.uniform(*STOPPED_SECONDS))
            self._plant.proxy.stall(False)

    # --- scarcity ---

    def _fill(self, chance: random.Random) -> None:
        if self._plant.ground.why_not:
            self._harm.skipped["fill the disk"] = self._plant.ground.why_not
            return
        with self._one_scarcity, self._harm.lasting("full disk"), self._plant.ground.full():
            self._wait(chance.uniform(*SCARCE_SECONDS))

    def _take_descriptors(self, name: str, pid: int, chance: random.Random) -> None:
        more, seconds = chance.randrange(4), chance.uniform(*SCARCE_SECONDS)
        what = f"no descriptors for the {name}"
        with suppress(OSError), self._one_scarcity, self._harm.lasting(what, pid), few_descriptors(pid, more):
            self._wait(seconds)

    def _take_pids(self, chance: random.Random) -> None:
        pid = self._plant.runner_pid
        if not pid:
            return
        with suppress(OSError), self._one_scarcity, self._harm.lasting("no process ids", pid), no_forks(pid) as why_not:
            if why_not:
                self._harm.skipped["take process ids"] = why_not
            else:
                self._wait(chance.uniform(*SCARCE_SECONDS))

    # --- what vanishes, and what is set ---

    def _remove_a_file(self, chance: random.Random) -> None:
        if directory := self._await_living(chance):
            file = chance.choice(removal.FILES)
            self._harm.add(removal.removed(file), execution=directory.name)
            removal.unlink(directory / file)

    def _remove_a_socket(self, chance: random.Random) -> None:
        name = chance.choice([*removal.SOCKETS, removal.CONTROL])
        directory = self._await_living(chance) if name == removal.CONTROL else self._plant.state_dir
        if directory:
            self._harm.add(removal.removed(name), execution=directory.name if name == removal.CONTROL else "")
            removal.unlink(directory / name)

    def _remove_a_directory(self, chance: random.Random) -> None:
        if directory := self._await_living(chance):
            self._harm.add(removal.DIRECTORY, execution=directory.name)
            removal.remove_tree(directory)

    def _step_the_clock(self, chance: random.Random) -> None:
        """Step days ahead or years behind, and back: once in the life of most executions."""
        with self._one_scarcity, self._harm.lasting("clock stepped"):
            self._plant.clock.step(chance.choice(CLOCK_STEPS))
            self._wait(chance.uniform(*STOPPED_SECONDS))
            self._plant.clock.step(0)

    def _await_living(self, chance: random.Random) -> Path | None:
        until = time.monotonic() + VICTIM_SECONDS
        with self._pace.in_want_of_work():
            while not (found := removal.choose(self._plant.spool, chance)) and time.monotonic() < until:
                self._wait(0.01)
        return found

    def _await_shims(self) -> dict[int, str]:
        until = time.monotonic() + VICTIM_SECONDS
        with self._pace.in_want_of_work():
            while not (shims := self._plant.shims()) and time.monotonic() < until:
                self._wait(0.01)
        return shims

    def _wait(self, seconds: float) -> None:
        self._never.wait(seconds)
