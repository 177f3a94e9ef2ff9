"""The counters of calls, under the names that gRPC's own libraries have: dashboards for them work here too."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
# From a Poll to a Follow of an hour.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)


class RpcMetrics:
    """Makes the counters of a method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"grpc_server_{name}", what, (*_METHOD, *labels), registry=registry)

        self.started = counter("started", "Calls that began.")
        self.handled = counter("handled", "Calls that ended, by status.", "grpc_code")
        self.received = counter("msg_received", "Messages received.")
        self.sent = counter("msg_sent", "Messages sent.")
        self.seconds = Histogram(
            "grpc_server_handling_seconds", "How long calls took.", _METHOD, registry=registry, buckets=_BUCKETS
        )

    def of(self, kind: str, service: str, method: str) -> _Method:
        return _Method(self, (kind, service, method))


class _Method:
    """What is looked up once, and not in each call."""

    def __init__(self, metrics: RpcMetrics, labels: tuple[str, str, str]) -> None:
        self._started = metrics.started.labels(*labels)
        self._received = metrics.received.labels(*labels)
        self._sent = metrics.sent.labels(*labels)
        self._seconds = metrics.seconds.labels(*labels)
        self._handled = metrics.handled
        self._labels = labels
        self._codes: dict[str, Counter] = {}

    def started(self) -> None:
        self._started.inc()

    def received(self) -> None:
        self._received.inc()

    def sent(self) -> None:
        self._sent.inc()

    def handled(self, code: str, seconds: float) -> None:
        if code not in self._codes:
            self._codes[code] = self._handled.labels(*self._labels, code)
        self._codes[code].inc()
        self._seconds.observe(seconds)
