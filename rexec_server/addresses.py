"""Where the server listens for gRPC, and how each address is secured."""

from __future__ import annotations

import os
import socket

from rexec_server.config import Config, Listener
from rexec_server.ingresses import Ingresses
from rexec_server.policy.files import PolicyError, check_socket_directory
from rexec_server.rpc.server import RpcServer
from rexec_server.rpc.tls import ServerTls
from rexec_server.state_dir import StartRefused


async def listen_all(server: RpcServer, config: Config, ingresses: Ingresses) -> list[str]:
    """Binds every address of the configuration, and returns them as clients write them. StartRefused."""
    addresses = []
    for listener in config.listeners:
        if not ingresses.needed(listener):
            addresses.append(listen(server, listener, dev=config.dev))
            continue
        try:
            addresses.append(await ingresses.listen(listener))
        except (OSError, ValueError) as error:
            raise StartRefused(str(error)) from error
    return addresses


def listen(server: RpcServer, listener: Listener, *, dev: bool) -> str:
    """Binds an address. A unix socket is for our user and, outside --dev, for our group too. StartRefused."""
    address = listener.address
    path = address.removeprefix("unix:") if address.startswith("unix:") else None
    try:
        if path is not None:
            if not dev:
                check_socket_directory(path)
            _check_unix_socket(path)
        port = server.listen(address, _tls(listener))
    except (OSError, ValueError, PolicyError) as error:
        raise StartRefused(str(error)) from error
    if path is None:
        return f"{address.rpartition(':')[0]}:{port}"
    os.chmod(path, 0o600 if dev else 0o660)
    return address


def _tls(listener: Listener) -> ServerTls | None:
    if not listener.tls_cert or not listener.tls_key:
        return None
    return ServerTls(listener.tls_cert, listener.tls_key, listener.client_ca)


def _check_unix_socket(path: str) -> None:
    """gRPC takes over another server's socket without a word; so we ask whether somebody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return
    raise StartRefused(f"cannot listen on unix:{path}: another server answers there")
