"""The slots of whoever waits: streams, and calls that wait. They are bounded, so that polls always find a worker."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Response
from rexec.v1.execution_service_pb2 import FollowResponse

from rexec_client._sync.follow import Follow
from rexec_client.errors import CallError, UnavailableError
from rexec_server.gateway.credential import holder_of
from rexec_server.gateway.problems import Problem, from_call
from rexec_server.gateway.upstream import credential

RETRY_AFTER = 5.0
# A page has some streams open, and a caller some pages.
LEAST_SHARE = 16
# What a browser's EventSource waits before it connects again, in milliseconds.
_RECONNECT = "retry: 1000\n\n"
_HEARTBEAT = ": heartbeat\n\n"

Describe = Callable[[FollowResponse], tuple[str, Any]]
"""Names one message's event and gives its data, for JSON."""


def share_of(limit: int) -> int:
    """Return what one caller may hold by default."""
    return min(limit, max(LEAST_SHARE, limit // 4))


class Streams:
    """Hands out the slots, and ends who holds one when the gateway stops."""

    def __init__(self, limit: int, share: int) -> None:
        """Make it. share: how many of them one caller may hold."""
        self._limit, self._share = limit, share
        self._lock = threading.Lock()
        self._held = 0
        self._of: Counter[str] = Counter()
        self._follows: set[Follow] = set()
        self._closed = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A slot for a call that waits."""
        holder = self._take()
        try:
            yield
        finally:
            self._give_back(holder)

    def respond(self, follow: Follow, describe: Describe) -> Response:
        """Server-Sent Events of a Follow. What refuses it is an error before the first byte, as everywhere."""
        holder = self._take(follow)
        try:
            first = follow.receive()
        except BaseException:
            self._give_back(holder, follow)
            raise
        response = Response(_events(follow, first, describe, credential.get()), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store, no-transform"
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(lambda: self._give_back(holder, follow))
        return response

    def close(self) -> None:
        """Ends every stream, unfinished: whoever follows resumes at the next gateway."""
        with self._lock:
            self._closed = True
            follows = list(self._follows)
        for follow in follows:
            follow.abort(UnavailableError("the gateway is stopping; resume", code="UNAVAILABLE"))

    def _take(self, follow: Follow | None = None) -> str:
        """Returns whose slot it is."""
        holder = holder_of(credential.get())
        with self._lock:
            if self._closed:
                raise Problem(503, "the gateway is stopping; try again")
            if self._held >= self._limit:
                message = f"{self._held} streams are open, and no more may be; try again, or poll"
                raise Problem(503, message, retry_after=RETRY_AFTER)
            if self._of[holder] >= self._share:
                message = f"{self._of[holder]} streams of this caller are open, and no more may be; close one, or poll"
                raise Problem(429, message, retry_after=RETRY_AFTER)
            self._held += 1
            self._of[holder] += 1
            if follow is not None:
                self._follows.add(follow)
        return holder

    def _give_back(self, holder: str, follow: Follow | None = None) -> None:
        if follow is not None:
            follow.close()
        with self._lock:
            self._held -= 1
            self._of[holder] -= 1
            if not self._of[holder]:
                del self._of[holder]
            if follow is not None:
                self._follows.discard(follow)


def _events(follow: Follow, message: FollowResponse, describe: Describe, caller: str | None) -> Iterator[str]:
    credential.set(caller)  # a Follow that is resumed needs it again
    yield _RECONNECT
    while True:
        kind = message.WhichOneof("event")
        if kind == "heartbeat":
            yield _HEARTBEAT
        elif kind is not None:
            name, data = describe(message)
            yield _event(name, data, message.next_offset)
        if kind == "end":
            return
        try:
            message = follow.receive()
        except CallError as error:
            yield _event("failure", {"error": from_call(error).as_status()})
            return


def _event(name: str, data: Any, offset: int | None = None) -> str:
    """One event. JSON has no raw line break, so its data is one line."""
    place = "" if offset is None else f"id: {offset}\n"
    return f"{place}event: {name}\ndata: {json.dumps(data)}\n\n"
