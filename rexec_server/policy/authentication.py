"""Who calls, in production: decided from a verified certificate, a token, or both."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable

from rexec_server.core.errors import NotAllowed, RateLimited, Unauthenticated
from rexec_server.core.origin import Origin
from rexec_server.policy.caller import Caller, Presented
from rexec_server.policy.callers import CallerEntry, Callers
from rexec_server.policy.rate import Buckets, Rate
from rexec_server.policy.tokens import Claims, TokenRefused, TokenVerifier

_log = logging.getLogger(__name__)

# Names under which proxies say who calls. We never look at them; whoever sends one believes that we do, or tries it.
_CLAIMS_IDENTITY = re.compile(
    r"(?:x-)?(?:caller|user|remote-user|remote-group|forwarded-user|forwarded-email|forwarded-groups)"
    r"|(?:proxied|impersonate|x-remote-extra|x-authenticated|x-auth-request|x-webauth|x-forwarded-preferred"
    r"|x-goog-authenticated|x-amzn-oidc|x-ms-client-principal)-.*"
)
# One household or machine has a whole /64 of IPv6 addresses to try from.
_IPV6_PREFIX = 64


class CallerAuthenticator:
    """Lets in those whom `callers` knows. Who fails too often from one place is told to wait, and not logged."""

    def __init__(
        self, callers: Callers, audience: str, failed_auth: Rate, clock: Callable[[], float] = time.time
    ) -> None:
        """audience: this server's name in tokens. failed_auth: per peer address. clock: seconds since 1970."""
        self._callers = callers
        self._clock = clock
        self._tokens = TokenVerifier(audience, clock)
        self._failures = Buckets(failed_auth)

    def replace(self, callers: Callers) -> None:
        """From now on these; nothing is kept of the old ones."""
        self._callers = callers

    def authenticate(self, presented: Presented) -> Caller:
        """Who calls. Unauthenticated, NotAllowed; RateLimited instead of either when the peer failed too often."""
        try:
            return self._identify(presented)
        except (Unauthenticated, NotAllowed) as error:
            self._count(presented.peer)
            detail = error.detail if isinstance(error, TokenRefused) else error.message
            _log.warning("a call from %s was not let in: %s", presented.peer, detail, extra={"peer": presented.peer})
            raise

    def still_valid(self, caller: Caller) -> bool:
        """Whether what proved this caller would still do so, and give the same roles."""
        callers, origin = self._callers, caller.origin  # read once: a reload in another thread may replace them
        entry = callers.get(caller.name)
        if entry is None or not entry.enabled or entry.roles != caller.roles:
            return False
        if origin.method == "certificate":
            return origin.key_id in entry.uris
        found = callers.by_kid(origin.key_id)
        if found is None or found[0] is not entry or not found[1].usable(self._clock()):
            return False
        return origin.method == "token" or bool(entry.uris)

    def _identify(self, presented: Presented) -> Caller:
        callers = self._callers  # read once, as above
        for name in presented.metadata_names:
            if _CLAIMS_IDENTITY.fullmatch(name):
                raise Unauthenticated("metadata that says who calls is not accepted; authorization: Bearer TOKEN is")
        if len(presented.authorization) > 1:
            raise Unauthenticated("authorization is given more than once")
        certified = None if presented.uris is None else _certified(presented.uris, callers)
        if presented.authorization:
            claims = self._tokens.verify(_bearer(presented.authorization[0]), callers)
            return _by_token(claims, certified, presented.peer)
        if certified is None:
            raise Unauthenticated("a token is needed: authorization: Bearer TOKEN")
        uri, entry = certified
        return Caller(entry.name, entry.roles, origin=Origin("certificate", uri, peer=presented.peer))

    def _count(self, peer: str) -> None:
        """RateLimited when so many calls from there have failed that this one is not worth a line in the log."""
        wait = self._failures.take(_address(peer))
        if wait:
            raise RateLimited("failed authentication", "too many calls from there were not let in", wait) from None


def _certified(uris: tuple[str, ...], callers: Callers) -> tuple[str, CallerEntry]:
    """The one caller whom a verified certificate names, and by which name. NotAllowed says nothing of who there is."""
    found = [(uri, entry) for uri in uris if (entry := callers.by_uri(uri)) is not None and entry.enabled]
    if len(found) != 1:
        raise NotAllowed("this certificate is no caller's")
    return found[0]


def _bearer(authorization: str) -> str:
    scheme, space, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not space:
        raise Unauthenticated("authorization must be 'Bearer TOKEN'")
    return token


def _by_token(claims: Claims, certified: tuple[str, CallerEntry] | None, peer: str) -> Caller:
    entry, method = claims.caller, "token"
    if certified is not None:
        if certified[1].name != entry.name:
            raise Unauthenticated("the certificate and the token are not the same caller's")
        method = "certificate+token"
    origin = Origin(method, claims.kid, claims.token_id, claims.expires_ns, peer)
    return Caller(entry.name, entry.roles, claims.read_only, origin)


def _address(peer: str) -> str:
    """Whose failures are counted together: an address without its port, a network of IPv6, all of the unix sockets."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = rest.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D").strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)
