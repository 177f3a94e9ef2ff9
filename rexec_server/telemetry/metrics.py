"""The numbers of a server, for Prometheus. Counters are from zero in each process; gauges are looked up when asked.

The registry is our own: whatever else in this process counts something, nobody sees it here.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from rexec_server.core.execution import CHANNELS, Execution, State
from rexec_server.core.index import now_ns
from rexec_server.core.observer import Observer
from rexec_server.core.spool import Reason, StartError
from rexec_server.telemetry.rpc_metrics import RpcMetrics

_SPAWN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics(Observer):
    """One server's."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.rpc = RpcMetrics(registry)
        Info("rexec_build", "Which rexec this is.", registry=registry).info({"version": version})
        self.runner_up = Gauge("rexec_runner_up", "Whether rexec-runner answers.", registry=registry)
        self.followers = Gauge("rexec_followers", "Follow calls of executions that run.", registry=registry)
        self._executions = Gauge("rexec_executions", "Executions that are kept.", ["state"], registry=registry)
        self._spawn = Histogram(
            "rexec_spawn_seconds",
            "From asking the runner until the command's exec was decided.",
            registry=registry,
            buckets=_SPAWN_BUCKETS,
        )
        self._ended = Counter("rexec_executions_ended", "Ends that were seen.", ["reason"], registry=registry)
        self._output = Counter("rexec_output_bytes", "Output of what has ended.", ["channel"], registry=registry)
        self._gaps = Counter("rexec_gap_bytes", "Of that output, what a limit dropped.", registry=registry)
        # Each series is there from the beginning: a rate needs a zero to rise from.
        for reason in Reason:
            self._ended.labels(reason.name)
        for channel in CHANNELS:
            self._output.labels(channel.name)

    def spawned(self, name: str, execution: Execution, began: int, error: StartError | None) -> None:
        self._spawn.observe(max(0, now_ns() - began) / 1e9)

    def ended(self, name: str, execution: Execution) -> None:
        assert execution.exit is not None
        self._ended.labels(execution.exit.reason.name).inc()
        for channel, produced in zip(CHANNELS, execution.extent.produced, strict=True):
            self._output.labels(channel.name).inc(produced)
        self._gaps.inc(sum(execution.extent.dropped))

    def set_executions(self, counts: dict[State, int]) -> None:
        for state in State:
            self._executions.labels(state.name).set(counts.get(state, 0))

    def forget_executions(self) -> None:
        """The index does not answer: better no number than an old one."""
        self._executions.clear()
