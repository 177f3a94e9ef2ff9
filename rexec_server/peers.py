"""Peers, whose connections are counted together, and the limit on each.

The standard library only, so every program may use it.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# A network of IPv6 is one peer's: who has one of its addresses has them all.
_IPV6_PREFIX = 64


def network(host: str) -> str:
    """Return the address itself, or, of IPv6, its network; any other text is returned as it is."""
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
    """Return an address as in gRPC's `peer()`, such as ipv4:10.0.0.7:40212 or ipv6:%5B::1%5D:40212."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return f"ipv4:{address}:{port}" if address.version == 4 else f"ipv6:%5B{address}%5D:{port}"


class Places(Generic[T]):
    """Of those who have come and have not said all that they must: so many in all, and of one peer.

    One more takes the place of the one that has been there for longest, of its peer where that has too many. An
    honest one is soon through, and who holds places stays: so the oldest is one of those.
    """

    def __init__(self, most: int, most_of_peer: int) -> None:
        self._most, self._most_of_peer = most, most_of_peer
        self._items: dict[T, str] = {}  # in the order in which they came
        self._of_peer: dict[str, dict[T, None]] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, peer: str) -> T | None:
        """Returns who has to go, and has no place any more."""
        goes = None
        if len(self._of_peer.get(peer, ())) >= self._most_of_peer:
            goes = next(iter(self._of_peer[peer]))
        elif len(self._items) >= self._most:
            goes = next(iter(self._items))
        if goes is not None:
            self.remove(goes)
        self._items[item] = peer
        self._of_peer.setdefault(peer, {})[item] = None
        return goes

    def remove(self, item: T) -> None:
        """Does nothing for one that has no place."""
        peer = self._items.pop(item, None)
        if peer is None:
            return
        own = self._of_peer[peer]
        del own[item]
        if not own:
            del self._of_peer[peer]


class Open:
    """Counts connections, in all and of one peer; any thread may ask."""

    def __init__(self, most: int, most_of_peer: int) -> None:
        self._most, self._most_of_peer = most, most_of_peer
        self._lock = threading.Lock()
        self._total = 0
        self._of_peer: Counter[str] = Counter()

    def enter(self, peer: str) -> str | None:
        """Count one more; or return why there is no room for it."""
        with self._lock:
            if self._total >= self._most:
                return f"{self._total} connections are open"
            if self._of_peer[peer] >= self._most_of_peer:
                return f"{self._of_peer[peer]} connections of one address are open"
            self._total += 1
            self._of_peer[peer] += 1
            return None

    def leave(self, peer: str) -> None:
        with self._lock:
            self._total -= 1
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer]
