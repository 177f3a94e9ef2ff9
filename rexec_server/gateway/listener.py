"""The listening socket. The standard library only: the server binds it before it starts the gateway."""

from __future__ import annotations

import ipaddress
import socket

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Connections that the kernel keeps waiting; the distribution may allow fewer (net.core.somaxconn).
BACKLOG = 2048


def listen(address: str) -> socket.socket:
    """Listens on `host:port` or `[ipv6]:port`. OSError when it cannot, ValueError when that is no address."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address; write host:port")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    # Its connections inherit it. An answer is written in two parts: without this the second waits 40 ms for the client.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def url(listener: socket.socket, *, tls: bool) -> str:
    """Where it can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
