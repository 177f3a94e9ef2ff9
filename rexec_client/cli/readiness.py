"""Waiting for a descriptor within an event loop, without a thread and without making it non-blocking."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Return when a read of `fd` will not block. Files and some devices never do, and epoll refuses them."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Return when a small write to `fd` will not block."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_writer(fd, ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)
