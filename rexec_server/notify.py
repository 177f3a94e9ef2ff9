"""What a program tells the service manager that started it, such as systemd: the datagrams of sd_notify(3).

The standard library only, so every program may use it. Without NOTIFY_SOCKET nobody is told anything.
"""

from __future__ import annotations

import os
import socket
import time

VARIABLE = "NOTIFY_SOCKET"
# A manager reads at once; one that does not shall not hold up whoever tells it.
_SECONDS = 1.0


def ready(status: str = "") -> None:
    """It serves, for the first time or after a reload. status: one line for people."""
    _tell("READY=1", *([f"STATUS={status}"] if status else []))


def reloading() -> None:
    """It reads its files again, until it says `ready`."""
    _tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """It has begun to stop."""
    _tell("STOPPING=1")


def _tell(*assignments: str) -> None:
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # stands for the NUL of an abstract address
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.sendto("\n".join(assignments).encode(), address)
        except OSError:
            pass  # it has gone: that is no reason not to serve, and whoever waits for us there says so itself
