"""asyncssh, as a client of OpenSSH's server: one connection, a channel for each command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.candidates.openssh import Sshd
from bench.model import Skipped


@asynccontextmanager
async def connect(sshd: Sshd) -> AsyncIterator[Any]:
    """Skipped where there is no asyncssh."""
    try:
        import asyncssh
    except ImportError:
        raise Skipped("there is no asyncssh here: pip install 'rexec[bench]'") from None
    async with asyncssh.connect(
        "127.0.0.1", sshd.port, username=sshd.user, config=None, client_keys=[str(sshd.directory / "user")],
        known_hosts=str(sshd.directory / "known"), agent_path=None,
    ) as connection:  # fmt: skip
        yield connection
