"""What this server tells of itself, put together: lines in the log, metrics, traces, and whether it is ready."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from rexec_client.version import __version__
from rexec_server.config import Config
from rexec_server.core.engine import Engine
from rexec_server.core.errors import Unavailable
from rexec_server.core.executions import Executions
from rexec_server.core.index import Index
from rexec_server.core.observer import Observer, Observers
from rexec_server.gateway.listener import listen, url
from rexec_server.rpc.metering import MeterInterceptor
from rexec_server.rpc.server import Interceptor, RpcServer
from rexec_server.rpc.tracing import TraceInterceptor
from rexec_server.state_dir import StartRefused
from rexec_server.telemetry import otel
from rexec_server.telemetry.execution_log import ExecutionLog
from rexec_server.telemetry.readiness import OK, PATIENCE_SECONDS, Readiness

if TYPE_CHECKING:
    from rexec_server.telemetry.endpoint import Endpoint

_log = logging.getLogger(__name__)


class Monitoring:
    """`observer` is told of executions, `interceptors` of calls; `start` opens what there is to look at."""

    def __init__(self, config: Config) -> None:
        """StartRefused when its address cannot be had."""
        self._listener = _bind(config.metrics) if config.metrics else None
        self._watching: asyncio.Task[None] | None = None
        self._readiness: Readiness | None = None
        self._endpoint: Endpoint | None = None
        self.interceptors: list[Interceptor] = []
        observers: list[Observer] = [ExecutionLog()]
        if self._listener:
            from rexec_server.telemetry.metrics import Metrics

            self._metrics = Metrics(__version__)
            observers.append(self._metrics)
            self.interceptors.append(MeterInterceptor(self._metrics.rpc.of))
        self._traces = otel.traces(os.environ, __version__)
        if self._traces:
            observers.append(self._traces)
            self.interceptors.append(TraceInterceptor(self._traces))
        self.observer = Observers(observers)

    def start(self, executions: Executions, index: Index, engine: Engine, server: RpcServer) -> None:
        """All of them serve by now."""
        readiness = self._readiness = Readiness(index, engine)
        self._watching = asyncio.create_task(readiness.watch(server.set_serving))
        if self._listener is None:
            return
        from rexec_server.telemetry.endpoint import Endpoint

        async def refresh() -> None:
            self._metrics.runner_up.set((await readiness.check())["runner"] == OK)
            self._metrics.followers.set(sum(entry.followers for entry in executions.live))
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self._metrics.set_executions(await index.counts())
            except (Unavailable, TimeoutError):
                self._metrics.forget_executions()

        self._endpoint = Endpoint(self._listener, self._metrics.registry, refresh, readiness.check)
        _log.info("metrics are at %s/metrics", url(self._listener, tls=False))

    def drain(self) -> None:
        """From now on it is not ready."""
        if self._readiness:
            self._readiness.draining = True

    async def stop(self) -> None:
        if self._watching:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._endpoint:
            await self._endpoint.stop()
        elif self._listener:
            self._listener.close()

    async def close(self) -> None:
        """After everything else: the last spans."""
        if self._traces:
            await asyncio.to_thread(self._traces.close)


def _bind(address: str) -> socket.socket:
    try:
        return listen(address)
    except OSError as error:
        raise StartRefused(f"cannot listen on {address} for metrics: {error.strerror}") from error
