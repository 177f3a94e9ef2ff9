"""The composition root: builds a server from its configuration, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import uuid
from contextlib import AsyncExitStack

from rexec_client.version import __version__
from rexec_server import logs, memory, notify
from rexec_server.addresses import listen_all
from rexec_server.config import Config
from rexec_server.core import pid_file
from rexec_server.core.command import Defaults
from rexec_server.core.errors import RexecError
from rexec_server.core.executions import Bounds, Executions
from rexec_server.core.index import Index
from rexec_server.core.spool import Reason
from rexec_server.core.turns import Turns
from rexec_server.core.waker import Waker
from rexec_server.engines.launcher import RunnerLauncher
from rexec_server.engines.local import LocalEngine
from rexec_server.front import Front
from rexec_server.ingresses import Ingresses
from rexec_server.monitoring import Monitoring
from rexec_server.rpc.auth import CallInterceptor
from rexec_server.rpc.follow import Drain
from rexec_server.rpc.server import RpcServer
from rexec_server.rpc.servicer import ExecutionServicer, ServerFacts
from rexec_server.security import Security, build
from rexec_server.state_dir import Claim, StartRefused
from rexec_server.unix_socket import UnixSocket, keep_names

_log = logging.getLogger(__name__)

PRUNE_SECONDS = 1.0
NAMES_SECONDS = 0.5
# Counting and adding up everything that is kept is dearer than looking for what has expired.
EXCESS_EVERY = 5
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(config: Config, claim: Claim, launcher: RunnerLauncher | None) -> None:
    """Serves until SIGTERM or SIGINT; `launcher` starts a runner when there is none. StartRefused."""
    logs.configure("rexec-server", config.log_format, config.log_level)
    try:
        asyncio.run(_serve(config, claim, launcher))
    except RexecError as error:
        raise StartRefused(error.message) from error


async def _serve(config: Config, claim: Claim, launcher: RunnerLauncher | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        security = build(config)
        stack.callback(security.close)
        if not config.dev:  # there a terminal that is closed ends the server
            # Files are read in a thread: nobody's call waits for that.
            loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, _reload, security))

        monitoring = Monitoring(config)
        stack.push_async_callback(monitoring.close)

        # The index comes first and goes last: every end that is seen is written there.
        index = Index(f"{config.state_dir}/index.sqlite", security.journal)
        stack.callback(index.close)
        waker = Waker()
        waker.start()
        stack.callback(waker.stop)

        engine = LocalEngine(config.state_dir, launcher, __version__)
        stack.push_async_callback(engine.close)
        await engine.ready()
        security.check_host(engine.features())
        keeper = asyncio.create_task(engine.keep_connected())
        stack.callback(keeper.cancel)

        defaults, bounds = _defaults(config), _bounds(config)
        executions = Executions(index, engine, waker, security.journal, defaults, bounds, monitoring.observer)
        stack.push_async_callback(executions.stop)
        await executions.recover()

        turns = Turns()
        drain = Drain(executions.wake_all)
        features = [*engine.features(), "writer", *(["inotify"] if waker.has_inotify else [])]
        facts = ServerFacts(__version__, uuid.uuid4().hex, config.tail_lines, defaults, bounds, features)
        servicer = ExecutionServicer(executions, security.admission, security.recorder, facts, drain, turns)
        interceptor = CallInterceptor(security.authenticator, security.limits, security.recorder, turns)
        outer = monitoring.interceptors
        server = RpcServer(servicer, drain, interceptor, outer=outer, channelz_on=config.channelz, dev=config.dev)
        ingresses = Ingresses(server, config)
        addresses = await listen_all(server, config, ingresses)
        sockets = keep_names(config)
        for unix_socket in sockets:
            stack.callback(unix_socket.release)
        front = await Front.prepare(config, server, addresses)
        await server.start()
        ingresses.start()
        stack.push_async_callback(ingresses.stop)
        monitoring.start(executions, index, engine, server)
        stack.push_async_callback(monitoring.stop)
        for work in (_prune(executions), _keep_names(claim, sockets), memory.give_back()):
            stack.callback(asyncio.create_task(work).cancel)
        if front:
            front.start()
            stack.push_async_callback(front.stop)
        _greet(config, addresses, front.url if front else None)

        notify.ready(f"listens on {', '.join(addresses)}")
        await stop.wait()
        await _leave(config, executions, monitoring, server, ingresses)


async def _leave(
    config: Config, executions: Executions, monitoring: Monitoring, server: RpcServer, ingresses: Ingresses
) -> None:
    """Says so to everybody, and lets calls finish."""
    monitoring.drain()
    notify.stopping()
    _log.info("stopping; %d executions %s", len(executions.live), "end" if config.end_on_stop else "go on")
    if config.end_on_stop:
        server.refuse()
        await _end_all(executions)
    ingresses.refuse()
    await server.drain(config.stop_grace)


def _reload(security: Security) -> None:
    """What could not be read is in the log and in the audit; the server serves in any case."""
    notify.reloading()
    security.reload()
    notify.ready()


def _defaults(config: Config) -> Defaults:
    """A clean environment: of our own, commands get PATH, HOME and LANG, and nothing else."""
    environment = {
        "PATH": os.environ.get("PATH") or _DEFAULT_PATH,
        "HOME": os.environ.get("HOME") or "/",
        "LANG": os.environ.get("LANG") or "C.UTF-8",
    }
    return Defaults(
        working_directory=config.working_directory,
        environment=environment,
        output_bytes=config.output_bytes,
        waiting_timeout=config.waiting_timeout,
        max_timeout=config.max_timeout,
        retention=config.retention,
    )


def _bounds(config: Config) -> Bounds:
    return Bounds(
        config.max_running,
        config.caller_running,
        config.max_followers,
        config.caller_followers,
        config.keep_count,
        config.keep_bytes,
    )


async def _prune(executions: Executions) -> None:
    rounds = 0
    while True:
        try:
            await executions.prune(check_excess=rounds % EXCESS_EVERY == 0)
        except RexecError as error:  # a full disk, say; the next round may do better
            _log.warning("could not forget old executions: %s", error.message)
        rounds += 1
        await asyncio.sleep(PRUNE_SECONDS)


async def _keep_names(claim: Claim, sockets: list[UnixSocket]) -> None:
    """Makes what is removed under us anew: who comes later finds us by these names."""
    while True:
        for restore in (claim.restore, *(one.restore for one in sockets)):
            try:
                restore()
            except (pid_file.Held, OSError) as error:
                _log.warning("cannot make a removed name anew: %s", error)
        await asyncio.sleep(NAMES_SECONDS)


async def _end_all(executions: Executions) -> None:
    """Ends what runs, and waits until each end is on record."""
    live = executions.live
    await asyncio.gather(*(executions.cancel(entry, None, Reason.SERVER_SHUTDOWN) for entry in live))
    for entry in live:
        while not entry.ended:
            await entry.changed(1.0)


def _greet(config: Config, addresses: list[str], gateway: str | None) -> None:
    for address in addresses:
        _log.info("listening on %s", address)
    lines = [f"rexec-server {__version__} listens on {', '.join(addresses)}."]
    if config.dev:
        _log.warning(
            "--dev: everybody on this machine may run commands as %s", os.environ.get("USER", f"uid {os.getuid()}")
        )
        lines[0] += " Try, in another terminal:"
        lines += [
            f"    rexec --target {addresses[0]} run -- echo hello",
            f"    grpcurl -plaintext {addresses[0]} list",
        ]
    elif os.geteuid() == 0:
        _log.warning("the server is root, and need not be: give it a user of its own (docs/security.md)")
    if gateway:
        lines.append(f"The page and JSON are at {gateway}" + (":" if config.dev else ""))
    if gateway and config.dev:
        lines.append(f"    http POST {gateway}/api/exec/me cmd='echo hello'")
    print("\n".join(lines), flush=True)
