"""The slots of whoever waits: streams, and calls that wait. They are bounded, so that polls always find a worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Response
from rexec.v1.execution_service_pb2 import FollowResponse

from rexec_client._sync.follow import Follow
from rexec_client.errors import CallError, UnavailableError
from rexec_server.gateway.problems import Problem, from_call
from rexec_server.gateway.upstream import credential

RETRY_AFTER = 5.0
# What a browser's EventSource waits before it connects again, in milliseconds.
_RECONNECT = "retry: 1000\n\n"
_HEARTBEAT = ": heartbeat\n\n"

Describe = Callable[[FollowResponse], tuple[str, Any]]
"""Names one message's event and gives its data, for JSON."""


class Streams:
    """Hands out the slots, and ends who holds one when the gateway stops."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held = 0
        self._follows: set[Follow] = set()
        self._closed = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A slot for a call that waits."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def respond(self, follow: Follow, describe: Describe) -> Response:
        """Server-Sent Events of a Follow. What refuses it is an error before the first byte, as everywhere."""
        self._take(follow)
        try:
            first = follow.receive()
        except BaseException:
            self._give_back(follow)
            raise
        response = Response(_events(follow, first, describe, credential.get()), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store, no-transform"
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(lambda: self._give_back(follow))
        return response

    def close(self) -> None:
        """Ends every stream, unfinished: whoever follows resumes at the next gateway."""
        with self._lock:
            self._closed = True
            follows = list(self._follows)
        for follow in follows:
            follow.abort(UnavailableError("the gateway is stopping; resume", code="UNAVAILABLE"))

    def _take(self, follow: Follow | None = None) -> None:
        with self._lock:
            if self._closed:
                raise Problem(503, "the gateway is stopping; try again")
            if self._held >= self._limit:
                message = f"{self._held} streams are open, and no more may be; try again, or poll"
                raise Problem(503, message, retry_after=RETRY_AFTER)
            self._held += 1
            if follow is not None:
                self._follows.add(follow)

    def _give_back(self, follow: Follow | None = None) -> None:
        if follow is not None:
            follow.close()
        with self._lock:
            self._held -= 1
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
