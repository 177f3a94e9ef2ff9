"""Whose connections and failures are counted together. The standard library only, so every program may use it."""

from __future__ import annotations

import ipaddress

# A network of IPv6 is one peer's: who has one of its addresses has them all.
_IPV6_PREFIX = 64


def network(host: str) -> str:
    """The address itself, or, of IPv6, its network; any other text is returned as it is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def as_grpc_names_it(host: str, port: int) -> str:
    """An address as in gRPC's `peer()`, such as ipv4:10.0.0.7:40212 or ipv6:%5B::1%5D:40212."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return f"ipv4:{address}:{port}" if address.version == 4 else f"ipv6:%5B{address}%5D:{port}"
