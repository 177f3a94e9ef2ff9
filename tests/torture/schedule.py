"""When what is done: a seeded list of acts, spread over the run by its progress, not by the clock."""

from __future__ import annotations

import random
from typing import NamedTuple

# How often each comes, and how many processes it kills. Each comes at least once, however short the run.
WEIGHTS = {
    "kill a shim": (40, 1),
    "kill two shims": (6, 2),
    "kill the runner": (10, 1),
    "kill the server": (8, 1),
    "kill the gateway": (5, 1),
    "kill a follower": (4, 1),
    "kill runner and shim": (8, 2),
    "kill runner and all shims": (1, 3),
    "kill everything": (2, 5),
    "restart everything": (2, 0),
    "stop a shim": (5, 0),
    "stop the runner": (4, 0),
    "stop the server": (4, 0),
    "stop the gateway": (2, 0),
    "stop a follower": (2, 0),
    "cut connections": (8, 0),
    "hold connections": (3, 0),
    "fill the disk": (4, 0),
    "take descriptors of the runner": (3, 0),
    "take descriptors of the server": (3, 0),
    "take process ids": (3, 0),
    "remove a file": (6, 0),
    "remove a socket": (6, 0),
    "remove a directory": (3, 0),
    "step the clock": (4, 0),
}


class Act(NamedTuple):
    """At which progress (0 to 1) what is done, and the seed of all choices in doing it."""

    at: float
    what: str
    seed: int


def make_schedule(seed: int, kills: int) -> list[Act]:
    """Acts that kill about so many processes, or more; none at all for 0."""
    chance = random.Random(f"schedule {seed}")
    names, weights = list(WEIGHTS), [weight for weight, _ in WEIGHTS.values()]
    whats = list(names) if kills else []
    planned = sum(WEIGHTS[what][1] for what in whats)
    while planned < kills:
        whats.append(chance.choices(names, weights)[0])
        planned += WEIGHTS[whats[-1]][1]
    chance.shuffle(whats)
    times = sorted(chance.random() for _ in whats)
    return [Act(at, what, chance.getrandbits(32)) for at, what in zip(times, whats, strict=True)]
