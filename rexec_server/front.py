"""The gateway beside this server: on which socket it listens, how it reaches us, and with which flags it runs."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import sys
import time

from rexec_server.addresses import listen
from rexec_server.child import FIRST_FD, Child
from rexec_server.config import Config, Listener
from rexec_server.gateway import listener as gateway_listener
from rexec_server.policy.files import PolicyError, read_private
from rexec_server.rpc.server import RpcServer
from rexec_server.state_dir import StartRefused

_log = logging.getLogger(__name__)

# How long a port is waited for that the gateway of a killed server may still hold.
PORT_SECONDS = 3.0
_LONGEST_SOCKET_PATH = 107  # unix(7)


class Front:
    """A gateway that is about to run: it has its socket, and its way to us."""

    def __init__(self, config: Config, listening: socket.socket, target: str) -> None:
        """StartRefused when its certificate cannot be used."""
        self.url = gateway_listener.url(listening, tls=bool(config.gateway_tls_cert))
        flags = ["--with-parent", "--listen-fd", str(FIRST_FD), "--target", target, *_flags(config)]
        self._process = Child("gateway", "rexec_server.gateway", flags, [listening])

    @classmethod
    async def prepare(cls, config: Config, server: RpcServer, addresses: list[str]) -> Front | None:
        """Before the server starts. None when there shall be none, or another has the default port. StartRefused."""
        listening = await _listening_socket(config)
        return cls(config, listening, _target(server, config, addresses)) if listening else None

    def start(self) -> None:
        """StartRefused when there is no way to run it."""
        try:
            self._process.start()
        except OSError as error:
            python = os.path.realpath(sys.executable)
            raise StartRefused(
                f"cannot start the gateway: {python}: {error.strerror}; --no-gateway goes without"
            ) from error

    async def stop(self) -> None:
        await self._process.stop()


async def _listening_socket(config: Config) -> socket.socket | None:
    if config.no_gateway:
        return None
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return gateway_listener.listen(config.gateway)
        except OSError as error:
            # The gateway of a server that was killed needs a moment to notice.
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                continue
            if "gateway" in config.model_fields_set:
                raise StartRefused(f"cannot listen on {config.gateway}: {error.strerror}") from error
            _log.warning("no gateway: %s: %s; --gateway HOST:PORT says where else", config.gateway, error.strerror)
            return None


def _target(server: RpcServer, config: Config, addresses: list[str]) -> str:
    """How the gateway reaches us: a socket of its own, in a directory that is ours alone."""
    address = f"unix:{config.state_dir}/gateway.sock"
    if len(os.fsencode(address)) <= len("unix:") + _LONGEST_SOCKET_PATH:
        return listen(server, Listener(address=address), dev=config.dev)
    for listener, bound in zip(config.listeners, addresses, strict=True):
        if not listener.tls_cert:
            return bound
    raise StartRefused(
        f"the path of {config.state_dir} is too long for a socket; choose a shorter one, or --no-gateway"
    )


def _flags(config: Config) -> list[str]:
    flags = ["--max-streams", str(config.gateway_max_streams)]
    if config.gateway_caller_streams is not None:
        flags += ["--caller-streams", str(config.gateway_caller_streams)]
    flags += ["--log-format", config.log_format, "--log-level", config.log_level]
    if not config.dev:
        flags.append("--production")
    if config.gateway_behind_proxy:
        flags.append("--behind-proxy")
    for name in config.gateway_name:
        flags += ["--name", name]
    if config.gateway_tls_cert and config.gateway_tls_key:
        _check_certificate(config.gateway_tls_cert, config.gateway_tls_key)
        flags += ["--tls-cert", config.gateway_tls_cert, "--tls-key", config.gateway_tls_key]
    return flags


def _check_certificate(certificate: str, key: str) -> None:
    """Said before anything starts, and not by a gateway that starts again and again."""
    try:
        read_private(key)
        # The password: else OpenSSL asks for it, at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except PolicyError as error:
        raise StartRefused(str(error)) from error
    except (OSError, ValueError) as error:
        raise StartRefused(f"cannot use {certificate} with {key}: {error}") from error
