"""A gateway that makes mistakes when it is asked to, and says in each everything it knows.

`python -m tests.gateway.broken text|json`: /broken/<anything> is a mistake of the application, /torn/<anything>
one of the web server's, beyond any application.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

from flask import request

from rexec_server import logs
from rexec_server.gateway.app import create
from rexec_server.gateway.listener import LOOPBACK_NAMES, listen, url
from rexec_server.gateway.web import WebServer, serve


def main() -> None:
    logs.configure("rexec-gateway", sys.argv[1])
    gateway = create("127.0.0.1:1", LOOPBACK_NAMES, any_address=False, max_streams=1)

    @gateway.app.get("/broken/<path:_>")
    def broken(_: str) -> str:
        raise RuntimeError(f"cannot serve {request.url} with {request.headers}")

    application = gateway.app.wsgi_app

    def torn(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/torn/"):
            raise RuntimeError(f"cannot serve {environ}")
        return application(environ, start_response)

    gateway.app.wsgi_app = torn  # type: ignore[method-assign]
    listener = listen("127.0.0.1:0")
    thread = serve(WebServer(listener, gateway.app, 1, None))
    print(f"it listens on {url(listener, tls=False)}", flush=True)
    threading.Event().wait()
    thread.join()


if __name__ == "__main__":
    main()
