"""The composition root: builds a server from its configuration, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
import uuid
from contextlib import AsyncExitStack

from rexec_client.version import __version__
from rexec_server.config import Config
from rexec_server.core.command import Defaults
from rexec_server.core.errors import RexecError
from rexec_server.core.executions import Bounds, Executions
from rexec_server.core.index import Index
from rexec_server.core.spool import Reason
from rexec_server.core.waker import Waker
from rexec_server.engines.local import LocalEngine, RunnerLauncher
from rexec_server.policy.caller import DevAuthenticator
from rexec_server.rpc.follow import Drain
from rexec_server.rpc.server import RpcServer
from rexec_server.rpc.servicer import ExecutionServicer, ServerFacts

_log = logging.getLogger(__name__)

PRUNE_SECONDS = 1.0
# Counting and adding up everything that is kept is dearer than looking for what has expired.
EXCESS_EVERY = 30
# A runner that we started and that has nothing to do ends by itself after this long.
RUNNER_IDLE_SECONDS = 60.0
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StartRefused(Exception):
    """The server cannot start; the message says why, in one line."""


def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT. StartRefused."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.umask(0o077)
    lock = _take_place(config.state_dir)
    try:
        asyncio.run(_serve(config))
    except RexecError as error:
        raise StartRefused(error.message) from error
    finally:
        os.close(lock)


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        # The index comes first and goes last: every end that is seen is written there.
        index = Index(f"{config.state_dir}/index.sqlite")
        stack.callback(index.close)
        waker = Waker()
        waker.start()
        stack.callback(waker.stop)

        # In the one-user mode the runner is ours to start; else its own unit does that, and may be root.
        launcher = RunnerLauncher(config.state_dir, RUNNER_IDLE_SECONDS) if config.start_runner else None
        engine = LocalEngine(config.state_dir, launcher)
        stack.push_async_callback(engine.close)
        await engine.ready()
        keeper = asyncio.create_task(engine.keep_connected())
        stack.callback(keeper.cancel)

        defaults, bounds = _defaults(config), _bounds(config)
        executions = Executions(index, engine, waker, defaults, bounds)
        stack.push_async_callback(executions.stop)
        await executions.recover()

        drain = Drain(executions.wake_all)
        features = [*engine.features(), *(["inotify"] if waker.has_inotify else [])]
        facts = ServerFacts(__version__, uuid.uuid4().hex, config.tail_lines, defaults, bounds, features)
        server = RpcServer(ExecutionServicer(executions, facts, drain), drain, DevAuthenticator(), config.channelz)
        addresses = [_listen(server, address) for address in config.listen]
        await server.start()
        pruner = asyncio.create_task(_prune(executions))
        stack.callback(pruner.cancel)
        _greet(addresses)

        await stop.wait()
        _log.info("stopping; %d executions %s", len(executions.live), "end" if config.end_on_stop else "go on")
        if config.end_on_stop:
            await _end_all(executions)
        await server.drain(config.stop_grace)


def _take_place(state_dir: str) -> int:
    """One server per state directory: the lock is held for life, the pid in it is for people."""
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        fd = os.open(f"{state_dir}/server.pid", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise StartRefused(f"cannot use the state directory {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 20).decode().strip()
        os.close(fd)
        raise StartRefused(f"another rexec-server (pid {pid}) serves {state_dir}") from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _listen(server: RpcServer, address: str) -> str:
    """Binds an address and returns it as clients write it."""
    if address.startswith("unix:"):
        _check_unix_socket(address.removeprefix("unix:"))
    try:
        port = server.listen(address)
    except OSError as error:
        raise StartRefused(str(error)) from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


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
    return Bounds(config.max_running, config.max_followers, config.keep_count, config.keep_bytes)


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


def _greet(addresses: list[str]) -> None:
    for address in addresses:
        _log.info("listening on %s", address)
    _log.warning(
        "--dev: everybody on this machine may run commands as %s", os.environ.get("USER", f"uid {os.getuid()}")
    )
    target = addresses[0]
    print(
        f"rexec-server {__version__} listens on {', '.join(addresses)}. Try, in another terminal:\n"
        f"    rexec --target {target} run -- echo hello\n"
        f"    grpcurl -plaintext {target} list",
        flush=True,
    )
