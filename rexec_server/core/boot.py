"""Which boot of the machine this is: what is not synced, and every process id, belongs to one boot and to no other."""

from __future__ import annotations


def boot_id() -> str:
    """The kernel's random name of this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
