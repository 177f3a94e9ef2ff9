"""The small HTTP server for who looks at this one: /metrics for Prometheus, /livez and /readyz for who restarts it.

It runs in threads of its own, and asks the event loop for what it tells: a loop that hangs is not alive.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from cheroot.wsgi import Server
from prometheus_client import CollectorRegistry, make_wsgi_app

from rexec_server.telemetry.readiness import OK, is_ready

_log = logging.getLogger(__name__)

THREADS = 4
SOCKET_SECONDS = 10
STOP_SECONDS = 5
# How long the event loop may take to answer before it counts as hanging.
LOOP_SECONDS = 5.0

T = TypeVar("T")
Answer = tuple[str, str]  # status line, text

_HANGS = ("503 Service Unavailable", "the event loop does not answer\n")


class Endpoint:
    """Serves on a socket that listens already. refresh: awaited before metrics are shown. check: Readiness's."""

    def __init__(
        self,
        listener: socket.socket,
        registry: CollectorRegistry,
        refresh: Callable[[], Coroutine[Any, Any, None]],
        check: Callable[[], Coroutine[Any, Any, dict[str, str]]],
        patience: float = LOOP_SECONDS,
    ) -> None:
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._show = make_wsgi_app(registry)
        self._refresh = refresh
        self._check = check
        self._server = _Server(listener, self._answer)
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name="metrics")
        self._thread.start()

    async def stop(self) -> None:
        """Not in the loop: who is being answered may need it for that."""
        await asyncio.to_thread(self._server.stop)
        await asyncio.to_thread(self._thread.join)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path == "/metrics" and method == "GET":
            self._in_loop(self._refresh())
            shown: Iterable[bytes] = self._show(environ, start_response)
            return shown
        status, text = self._tell(path, method)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
        return [text.encode()]

    def _tell(self, path: str, method: str) -> Answer:
        if path not in ("/metrics", "/livez", "/readyz"):
            return "404 Not Found", "there are /metrics, /livez and /readyz\n"
        if method != "GET":
            return "405 Method Not Allowed", "use GET\n"
        return self._livez() if path == "/livez" else self._readyz()

    def _livez(self) -> Answer:
        return ("200 OK", "ok\n") if self._in_loop(asyncio.sleep(0, True)) else _HANGS

    def _readyz(self) -> Answer:
        parts = self._in_loop(self._check())
        if parts is None:
            return _HANGS
        text = "".join(f"[{'+' if how == OK else '-'}] {part}: {how}\n" for part, how in parts.items())
        return "200 OK" if is_ready(parts) else "503 Service Unavailable", text

    def _in_loop(self, question: Coroutine[Any, Any, T]) -> T | None:
        """The loop's answer, or None when it does not give one in time."""
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(self._patience)
        except TimeoutError:
            future.cancel()
            return None


class _Server(Server):
    """cheroot, on our socket and with our log."""

    def __init__(self, listener: socket.socket, app: Callable[..., Iterable[bytes]]) -> None:
        super().__init__(
            listener.getsockname()[:2],
            app,
            numthreads=THREADS,
            server_name="rexec",
            timeout=SOCKET_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        self._listener = listener
        self.software = "rexec"

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """The socket that was given, where cheroot would bind one."""
        self.socket = self._listener
        return self._listener

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        _log.log(level, "%s", msg, exc_info=traceback and level >= logging.ERROR)
