"""All that a runner has: what it tells of itself, and what it leaves to the version that it becomes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from rexec_server.core.spool import Channel
from rexec_server.runner.family import Family
from rexec_server.runner.handover import Handover, Held
from rexec_server.runner.peers import Peers
from rexec_server.runner.pipes import Pipes
from rexec_server.runner.receipts import Receipts
from rexec_server.runner.shim import Site
from rexec_server.runner.takeover import Takeover
from rexec_server.runner.wire import Message


class Standing(NamedTuple):
    """What this process has taken for its life, and what it is."""

    state_dir: int  # the open directory
    lock: int  # of runner.pid
    started_in: str  # a directory; relative paths in our arguments begin there
    version: str


@dataclass
class Execution:
    """What the runner keeps for each execution that is not over."""

    directory: int
    pipes: Pipes

    @classmethod
    def of(cls, held: Held) -> Execution:
        return cls(
            held.directory, Pipes({Channel(int(channel)): fd for channel, fd in held.outputs.items()}, held.stdin)
        )

    def held(self, pidfd: int) -> Held:
        outputs = {str(int(channel)): fd for channel, fd in self.pipes.outputs.items()}
        return Held(self.directory, outputs, self.pipes.stdin, pidfd)


class Estate(NamedTuple):
    """The runner's parts, which go on changing."""

    standing: Standing
    site: Site
    peers: Peers
    family: Family
    takeover: Takeover
    executions: dict[str, Execution]
    older: set[str]  # of them, from an earlier boot
    receipts: Receipts

    def describe(self) -> Message:
        """The answer to `info`."""
        delegation = self.site.delegation
        return {
            "pid": os.getpid(),
            "instance": self.receipts.instance,
            "uid": os.getuid(),
            "version": self.standing.version,
            "cgroup": delegation is not None,
            "controllers": delegation.controllers if delegation else (),
            "overflow_wait": True,
        }

    def leave(self, owed: list[tuple[int, int]]) -> Handover:
        """All that is not in the spool. owed: who waits for the answer that our successor is there."""
        listener, connections = self.peers.descriptors
        pidfds = self.takeover.pidfds
        return Handover(
            state_dir=self.standing.state_dir,
            lock=self.standing.lock,
            listener=listener,
            heritage=self.site.heritage,
            connections=connections,
            owed=owed,
            executions={name: one.held(pidfds.get(name, -1)) for name, one in self.executions.items()},
            shims=self.family.shims,
            leaders=self.family.leaders,
            orphans=self.family.orphans,
            older=sorted(self.older),
            instance=self.receipts.instance,
            received=self.receipts.names,
        )
