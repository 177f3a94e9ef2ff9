"""From a target to the options of its channel: what each is for is said beside it."""

from __future__ import annotations

import ipaddress
import json
import os

DEFAULT_TARGET = "127.0.0.1:50051"

ChannelOptions = list[tuple[str, str | int]]

# Signal is missing on purpose: sent twice it may do twice what was meant once. Follow is resumed by the client, which
# knows the offset. Exec and WriteStdin are repeated by it too: only by knowing each attempt can it tell its own repeat
# from another's start or write.
_IDEMPOTENT = ("Get", "Poll", "Acknowledge", "List", "Cancel", "Delete", "GetServerInfo")

# Output that has come and that the application has not asked for yet, per stream, in bytes: memory of this process.
LOOKAHEAD = 4 << 20

# Short: it bridges a restart of the server. What must last longer is done by the client, which can say so.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "rexec.v1.ExecutionService", "method": method} for method in _IDEMPOTENT],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def resolve_target(target: str | None) -> str:
    """The given target, else $REXEC_TARGET, else 127.0.0.1:50051."""
    return target or os.environ.get("REXEC_TARGET") or DEFAULT_TARGET


def channel_options(target: str) -> ChannelOptions:
    """The options for a channel to `target`."""
    options: ChannelOptions = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # A Follow may be silent for as long as its command: find out that the other side is gone.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # The default waits for up to two minutes between attempts: a follower would be late for that long.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A reader that is slower than its server: by itself gRPC lets the window grow with the speed of the connection,
        # and holds what comes in here; 544 MiB of it were seen. Without the probe the window is what is said here.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", LOOKAHEAD),
        # Output comes in messages of about 1 MiB, but a List of long commands may be more than the default 4 MiB.
        ("grpc.max_receive_message_length", 16 << 20),
    ]
    if is_local(target):
        # gRPC would send calls to 127.0.0.1 through $http_proxy, where nobody knows them.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def is_local(target: str) -> bool:
    """True when the target is a Unix socket or a loopback address."""
    scheme, _, rest = target.rpartition(":///") if ":///" in target else target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    address = rest if scheme in ("dns", "ipv4", "ipv6") else target
    return _is_loopback(_host(address))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] if address.count(":") == 1 else address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # not what ends so: a name server may know such a name, and be wrong
