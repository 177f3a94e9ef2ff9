"""The Flask application: puts the parts together."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask

from rexec_client.tls import Tls
from rexec_server.gateway import problems
from rexec_server.gateway.credential import Credentials
from rexec_server.gateway.guard import Guard
from rexec_server.gateway.modes import Modes
from rexec_server.gateway.page import page
from rexec_server.gateway.seen import Seen
from rexec_server.gateway.streams import Streams, share_of
from rexec_server.gateway.upstream import Upstream
from rexec_server.gateway.v1 import V1


@dataclass(frozen=True)
class Gateway:
    """An application, and what is to be closed with it."""

    app: Flask
    upstream: Upstream
    streams: Streams


def create(
    target: str,
    names: frozenset[str],
    *,
    any_address: bool,
    max_streams: int,
    caller_streams: int | None = None,
    tls: Tls | None = None,
    credential_required: bool = False,
) -> Gateway:
    """Return a gateway to the server at `target`. It answers only to its own names.

    caller_streams: of which one caller may hold so many; None: a quarter, and 16 at least.
    tls: how it reaches the server; None: in plaintext.
    credential_required: who shows none is answered without asking the server.
    """
    app = Flask("rexec_server.gateway")
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # nobody is told what other origins may do: they may do nothing
    app.url_map.merge_slashes = False  # it would redirect, and put a token into a Location header
    app.json.sort_keys = False  # type: ignore[attr-defined]  # as they were written: mode first
    upstream, streams = Upstream(target, tls), Streams(max_streams, caller_streams or share_of(max_streams))
    credentials = Credentials(credential_required)
    Guard(names, any_address).install(app)
    problems.install(app)
    app.register_blueprint(page)
    app.register_blueprint(Modes(upstream, streams, Seen(), credentials).blueprint())
    app.register_blueprint(V1(upstream, streams, credentials).blueprint())
    return Gateway(app, upstream, streams)
