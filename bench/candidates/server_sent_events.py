"""A reader of the gateway's event stream."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable

from bench.verify import Wrong


def follow(port: int, path: str, feed: Callable[[bytes], None]) -> int | None:
    """Feeds all output, and returns the exit code."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    try:
        for raw in response:
            if raw.startswith(b"data: "):
                event = json.loads(raw[6:])
                if event.get("output"):
                    feed(event["output"].encode())
                if event["status"] == "finished":
                    code: int | None = event.get("exit_code")
                    return code
        raise Wrong("the event stream ended without an end")
    finally:
        response.close()
        connection.close()
