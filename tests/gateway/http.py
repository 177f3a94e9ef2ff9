"""What the tests of the gateway ask with: one connection each, nothing followed, nothing hidden."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers.get_content_type() == "application/json", (self.status, self.body)
        return json.loads(self.body)


@dataclass
class Event:
    """One Server-Sent Event."""

    name: str
    data: Any
    id: int | None


def ask(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, ca: str | None = None
) -> Answer:
    """Asks once. A body that is not bytes is sent as JSON. ca: a file with the authority of an https server."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = _connect(url, ca)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Stream:
    """An open event stream: iterate over it for events."""

    def __init__(self, url: str, path: str, headers: dict[str, str] | None = None, ca: str | None = None) -> None:
        self._connection = _connect(url, ca)
        self._connection.request("GET", path, headers=headers or {})
        self.response = self._connection.getresponse()
        self.comments = 0
        if self.response.headers.get_content_type() != "text/event-stream":
            refusal = self.response.read()
            self.__exit__()
            raise AssertionError(refusal)

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self.response:
            name, colon, value = line.decode().rstrip("\n").partition(":")
            if not name and colon:
                self.comments += 1
            elif colon:
                fields[name] = value.strip()
            elif "data" in fields:
                yield _event(fields)
                fields = {}
            else:
                fields = {}

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        # The response holds the socket too, and would keep it open.
        self.response.close()
        self._connection.close()


def _event(fields: dict[str, str]) -> Event:
    return Event(fields["event"], json.loads(fields["data"]), int(fields["id"]) if "id" in fields else None)


def _connect(url: str, ca: str | None = None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        trust = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=SECONDS, context=trust)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
