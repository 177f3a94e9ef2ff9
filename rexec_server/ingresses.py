"""The ingress before each listener that takes tokens: its sockets, its way to gRPC, and the process itself."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time

from rexec_server.child import FIRST_FD, Child
from rexec_server.config import Config, Listener, split_address
from rexec_server.policy.certificate import CertificateFiles
from rexec_server.rpc.server import RpcServer, most_connections
from rexec_server.state_dir import StartRefused

# The time to wait for a port that the ingress of a killed server may still hold.
PORT_SECONDS = 3.0
_BACKLOG = 4096
_LONGEST_SOCKET_PATH = 107  # unix(7)
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (a comparison)


class Ingresses:
    """Those of one server; none in --dev, with --no-ingress, or where every listener wants certificates."""

    def __init__(self, server: RpcServer, config: Config) -> None:
        self._server, self._config = server, config
        self._children: list[Child] = []
        self._target = ""

    def needed(self, listener: Listener) -> bool:
        """Return True when a stranger can begin a call there. A unix socket is our group's; a client_ca asks before."""
        config = self._config
        return config.ingress and not config.dev and not listener.client_ca and not listener.address.startswith("unix:")

    async def listen(self, listener: Listener) -> str:
        """Binds the address, and returns it with its port. OSError, ValueError when it cannot, StartRefused."""
        target = self._listen_within()
        flags = ["--target", target, "--connections", str(most_connections())]
        flags += ["--log-format", self._config.log_format, "--log-level", self._config.log_level]
        if listener.tls_cert and listener.tls_key:
            CertificateFiles(listener.tls_cert, listener.tls_key)  # said now, and not by a child again and again
            flags += ["--tls-cert", listener.tls_cert, "--tls-key", listener.tls_key]
        sockets = await _bind(listener.address)
        for number, _ in enumerate(sockets, FIRST_FD):
            flags += ["--listen-fd", str(number)]
        self._children.append(Child("ingress", "rexec_server.ingress", flags, sockets))
        return f"{listener.address.rpartition(':')[0]}:{sockets[0].getsockname()[1]}"

    def start(self) -> None:
        """Start it. StartRefused when there is no way to run one."""
        try:
            for child in self._children:
                child.start()
        except OSError as error:
            python = os.path.realpath(sys.executable)
            raise StartRefused(
                f"cannot start the ingress: {python}: {error.strerror}; --no-ingress goes without"
            ) from error

    def refuse(self) -> None:
        """Refuse new connections from now on; those that there are go on, until the server ends them."""
        for child in self._children:
            child.refuse()

    async def stop(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._children))

    def _listen_within(self) -> str:
        """Return the path of the socket by which every ingress reaches gRPC, in a directory that is ours alone."""
        if not self._target:
            path = f"{self._config.state_dir}/ingress.sock"
            if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
                raise StartRefused(
                    f"the path of {self._config.state_dir} is too long for a socket; choose a shorter one, or"
                    " --no-ingress"
                )
            self._server.listen_for_ingress(f"unix:{path}")
            os.chmod(path, 0o600)
            self._target = path
        return self._target


async def _bind(address: str) -> list[socket.socket]:
    """Return sockets that listen on `host:port`, as many as its name has addresses. OSError."""
    host, port = split_address(address)
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return _bind_at_once(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                if time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
                    continue
                raise OSError(f"cannot listen on {address}: is it in use?") from error
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error


def _bind_at_once(host: str, port: int) -> list[socket.socket]:
    if host in _EVERYWHERE and socket.has_dualstack_ipv6():  # as gRPC does it: both kinds of addresses
        return [socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, (name, *_) in dict.fromkeys(found):
            chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
            sockets.append(socket.create_server((str(name), chosen), family=family, backlog=_BACKLOG))
    except OSError as error:
        if not sockets or error.errno == errno.EADDRINUSE:
            for sock in sockets:
                sock.close()
            raise
    return sockets
