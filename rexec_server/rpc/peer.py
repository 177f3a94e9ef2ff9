"""From where a call comes."""

from __future__ import annotations

from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]

_OF_INGRESS = "unix-abstract:rexec/"


def peer_of(context: Context) -> str:
    """Return the peer as gRPC names it, such as ipv4:10.0.0.7:40212; through our ingress, the client behind it.

    The ingress names its end of each connection after the client. Any client may choose such a name, so it counts only
    on the socket in the state directory, which alone has these credentials.
    """
    peer = context.peer()
    if peer.startswith(_OF_INGRESS) and context.auth_context().get("transport_security_type") == [b"local"]:
        return peer.removeprefix(_OF_INGRESS).partition("/")[2]
    return peer
