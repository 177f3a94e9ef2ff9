"""What asyncio does here and threads do in `_sync`: the same names in both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import grpc

from rexec_client.channel import channel_options
from rexec_client.tls import Tls

if TYPE_CHECKING:
    from rexec.v1.execution_service_pb2 import FollowRequest, FollowResponse

FollowCall: TypeAlias = "grpc.aio.UnaryStreamCall[FollowRequest, FollowResponse]"

sleep = asyncio.sleep


def open_channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel, in plaintext unless TLS is asked for; it connects at its first call."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=channel_options(target))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*tls.read()), options=channel_options(target))


class Background:
    """Work beside the body of `async with`; leaving the body ends it."""

    def __init__(self, work: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
        """`stop` tells the work to end soon; it may be cancelled instead."""
        self._work = work
        self._stop = stop

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._work())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
