"""Which requests may come in at all, so that no page elsewhere drives the gateway; and what goes out with each."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import time
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from rexec_server.gateway.listener import LOOPBACK_NAMES, is_loopback
from rexec_server.gateway.problems import Problem

_access = logging.getLogger("rexec.gateway.access")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_TRUSTED_SITES = ("same-origin", "none")
# What is the same for everybody: these may be linked to, and HEAD means what it says.
_PAGE = ("page.index", "static")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def own_names(host: str, extra: tuple[str, ...]) -> frozenset[str]:
    """The host names under which a gateway that listens on `host` may be addressed."""
    names = {name.lower() for name in extra}
    if is_loopback(host):
        return frozenset(names | LOOPBACK_NAMES | {host})
    if _is_address(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower(), *LOOPBACK_NAMES}
    return frozenset(names | {host.lower()})


class Guard:
    """Checks where a request comes from, before anything looks at what it asks."""

    def __init__(self, names: frozenset[str], any_address: bool) -> None:
        """`any_address`: an address is as good as a name. A page can rebind names, never addresses."""
        self._names = names
        self._any_address = any_address

    def install(self, app: Flask) -> None:
        app.before_request(self._check)
        app.after_request(_finish)

    def _check(self) -> None:
        g.began = time.monotonic()
        self._check_host(request.headers.get("Host", ""))
        _check_origin()
        if request.method == "HEAD" and request.endpoint not in _PAGE:
            raise Problem(405, "HEAD is not possible here; use GET", headers={"Allow": "GET"})

    def _check_host(self, host: str) -> None:
        match = _HOST.fullmatch(host)
        name = (match["v6"] or match["name"]).lower() if match else ""
        if name in self._names or (self._any_address and _is_address(name)):
            return
        raise Problem(400, "the Host header names somebody else; --name adds a name under which this gateway is known")


def _check_origin() -> None:
    """Browsers say where a request comes from; programs do not. A credential is asked for besides, never instead."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is not None and _netloc(origin) != request.headers.get("Host", "").lower():
        raise Problem(403, "a page of another origin may not use this gateway")
    linked = request.endpoint in _PAGE and request.headers.get("Sec-Fetch-Mode") == "navigate"
    if site is not None and site not in _TRUSTED_SITES and not linked:
        raise Problem(403, "a page of another site may not use this gateway")


def _netloc(origin: str) -> str | None:
    """None when it is no URL at all, and so nobody's."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _finish(response: Response) -> Response:
    """Headers for each answer, and a line in the log."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    _log_request(response.status_code)
    return response


def note_execution(exec_id: str, caller: str) -> None:
    """What the request turned out to be about, for its line in the log."""
    g.about = {"exec_id": exec_id, "caller": caller}


def _log_request(status: int) -> None:
    # The pattern, not the path: a path may carry a token.
    rule = request.url_rule.rule if request.url_rule else "?"
    method = request.method if request.method in _METHODS else "?"  # it is the caller's text
    about = {"exec_id": (request.view_args or {}).get("exec_id")} | g.get("about", {})
    took = time.monotonic() - g.get("began", time.monotonic())
    fields = {"status": status, "peer": request.remote_addr, "seconds": round(took, 4), **about}
    _access.log(logging.WARNING if status >= 500 else logging.INFO, "%s %s %s", method, rule, status, extra=fields)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
