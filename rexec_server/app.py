"""The composition root: builds a server from its configuration, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import sys
import time
import uuid
from contextlib import AsyncExitStack

from rexec_client.version import __version__
from rexec_server.config import Config
from rexec_server.core.command import Defaults
from rexec_server.core.errors import RexecError
from rexec_server.core.executions import Bounds, Executions
from rexec_server.core.index import Index
from rexec_server.core.journal import NoJournal
from rexec_server.core.spool import Reason
from rexec_server.core.waker import Waker
from rexec_server.engines.launcher import RunnerLauncher
from rexec_server.engines.local import LocalEngine
from rexec_server.gateway.child import GatewayProcess
from rexec_server.gateway.listener import listen, url
from rexec_server.policy.admission import AdmitAll
from rexec_server.policy.caller import DevAuthenticator
from rexec_server.rpc.follow import Drain
from rexec_server.rpc.server import RpcServer
from rexec_server.rpc.servicer import ExecutionServicer, ServerFacts
from rexec_server.state_dir import StartRefused

_log = logging.getLogger(__name__)

PRUNE_SECONDS = 1.0
# Counting and adding up everything that is kept is dearer than looking for what has expired.
EXCESS_EVERY = 5
# How long a port is waited for that the gateway of a killed server may still hold.
GATEWAY_PORT_SECONDS = 3.0
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(config: Config, launcher: RunnerLauncher | None) -> None:
    """Serves until SIGTERM or SIGINT; `launcher` starts a runner when there is none. StartRefused."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(_serve(config, launcher))
    except RexecError as error:
        raise StartRefused(error.message) from error


async def _serve(config: Config, launcher: RunnerLauncher | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        # The index comes first and goes last: every end that is seen is written there.
        journal = NoJournal()
        index = Index(f"{config.state_dir}/index.sqlite", journal)
        stack.callback(index.close)
        waker = Waker()
        waker.start()
        stack.callback(waker.stop)

        engine = LocalEngine(config.state_dir, launcher)
        stack.push_async_callback(engine.close)
        await engine.ready()
        keeper = asyncio.create_task(engine.keep_connected())
        stack.callback(keeper.cancel)

        defaults, bounds = _defaults(config), _bounds(config)
        executions = Executions(index, engine, waker, journal, defaults, bounds)
        stack.push_async_callback(executions.stop)
        await executions.recover()

        drain = Drain(executions.wake_all)
        features = [*engine.features(), *(["inotify"] if waker.has_inotify else [])]
        facts = ServerFacts(__version__, uuid.uuid4().hex, config.tail_lines, defaults, bounds, features)
        server = RpcServer(
            ExecutionServicer(executions, AdmitAll(), facts, drain), drain, DevAuthenticator(), config.channelz
        )
        addresses = [_listen(server, listener.address) for listener in config.listeners]
        gateway_socket = await _gateway_socket(config)
        target = _gateway_target(server, config.state_dir, addresses) if gateway_socket else ""
        await server.start()
        pruner = asyncio.create_task(_prune(executions))
        stack.callback(pruner.cancel)
        _greet(addresses, url(gateway_socket, tls=bool(config.gateway_tls_cert)) if gateway_socket else None)
        if gateway_socket:
            gateway = GatewayProcess(gateway_socket, target, _gateway_flags(config))
            gateway.start()
            stack.push_async_callback(gateway.stop)

        await stop.wait()
        _log.info("stopping; %d executions %s", len(executions.live), "end" if config.end_on_stop else "go on")
        if config.end_on_stop:
            server.refuse()
            await _end_all(executions)
        await server.drain(config.stop_grace)


def _listen(server: RpcServer, address: str) -> str:
    """Binds an address and returns it as clients write it."""
    if address.startswith("unix:"):
        _check_unix_socket(address.removeprefix("unix:"))
    try:
        port = server.listen(address)
    except OSError as error:
        raise StartRefused(str(error)) from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


async def _gateway_socket(config: Config) -> socket.socket | None:
    """Listens for the gateway. None when there shall be none, or when another has the default port."""
    if config.no_gateway:
        return None
    deadline = time.monotonic() + GATEWAY_PORT_SECONDS
    while True:
        try:
            return listen(config.gateway)
        except OSError as error:
            # The gateway of a server that was killed needs a moment to notice.
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                continue
            if "gateway" in config.model_fields_set:
                raise StartRefused(f"cannot listen on {config.gateway}: {error.strerror}") from error
            _log.warning("no gateway: %s: %s; --gateway HOST:PORT says where else", config.gateway, error.strerror)
            return None


def _gateway_target(server: RpcServer, state_dir: str, addresses: list[str]) -> str:
    """How the gateway reaches us: a socket of its own, in a directory that is ours alone."""
    address = f"unix:{os.path.abspath(state_dir)}/gateway.sock"
    # A socket's path is limited to 107 bytes (unix(7)).
    return _listen(server, address) if len(os.fsencode(address)) <= len("unix:") + 107 else addresses[0]


def _gateway_flags(config: Config) -> list[str]:
    flags = ["--max-streams", str(config.gateway_max_streams)]
    for name in config.gateway_name:
        flags += ["--name", name]
    if config.gateway_tls_cert and config.gateway_tls_key:
        _check_certificate(config.gateway_tls_cert, config.gateway_tls_key)
        flags += ["--tls-cert", config.gateway_tls_cert, "--tls-key", config.gateway_tls_key]
    return flags


def _check_certificate(certificate: str, key: str) -> None:
    """Said before anything starts, and not by a gateway that starts again and again."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise StartRefused(f"cannot use {certificate} with {key}: {error}") from error


def _check_unix_socket(path: str) -> None:
    """gRPC takes over another server's socket without a word; so we ask whether somebody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return
    raise StartRefused(f"cannot listen on unix:{path}: another server answers there")


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


async def _end_all(executions: Executions) -> None:
    """Ends what runs, and waits until each end is on record."""
    live = executions.live
    await asyncio.gather(*(executions.cancel(entry, None, Reason.SERVER_SHUTDOWN) for entry in live))
    for entry in live:
        while not entry.ended:
            await entry.changed(1.0)


def _greet(addresses: list[str], gateway: str | None) -> None:
    for address in addresses:
        _log.info("listening on %s", address)
    _log.warning(
        "--dev: everybody on this machine may run commands as %s", os.environ.get("USER", f"uid {os.getuid()}")
    )
    target = addresses[0]
    print(
        f"rexec-server {__version__} listens on {', '.join(addresses)}. Try, in another terminal:\n"
        f"    rexec --target {target} run -- echo hello\n"
        f"    grpcurl -plaintext {target} list"
        + (
            f"\nThe page and JSON are at {gateway}:\n    http POST {gateway}/api/exec/me cmd='echo hello'"
            if gateway
            else ""
        ),
        flush=True,
    )
