"""Tokens: a caller's name and the time, encrypted with the caller's key. Here they are checked.

A token is a compact JWE (RFC 7516) and could be written in one way only: what is not canonical, or chooses anything, is
refused. So two different texts are never the same token.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from joserfc import jwe
from joserfc.errors import JoseError

from rexec_server.core.errors import Unauthenticated
from rexec_server.policy.callers import KEY_ID, CallerEntry, Callers, Key

# Looked at before anything is parsed. One for a caller's and an audience's longest name has some 1200 characters.
LONGEST_TOKEN = 2048
# A token is for one call: whoever finds it in a log later has nothing.
LONGEST_LIFE_SECONDS = 300
# What clocks of machines that are kept right may differ by, both ways.
SKEW_SECONDS = 30
LONGEST_TOKEN_ID = 128

# Header, no encrypted key (RFC 7518 section 4.5), 12 bytes of IV, ciphertext, 16 bytes of tag (section 5.3).
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.\.([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{22})")
_ALGORITHMS = {"alg": "dir", "enc": "A256GCM"}
_REGISTRY = jwe.JWERegistry(algorithms=list(_ALGORITHMS.values()))
_TOKEN_ID = re.compile(rf"[\x21-\x7e]{{1,{LONGEST_TOKEN_ID}}}")
# No time that anybody means is beyond it, and arithmetic with floats is exact below.
_LATEST = 2**53
# Checking with this takes as long as with a key that there is.
_NOBODYS_KEY = Key("", os.urandom(32))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says. `expires_ns` is in nanoseconds since 1970."""

    caller: CallerEntry
    kid: str
    token_id: str
    expires_ns: int
    read_only: bool


class TokenRefused(Unauthenticated):
    """Who calls learns nothing of what is wrong with a token. `detail` is for our log, and has no text of the token."""

    def __init__(self, detail: str, message: str = "the token is not valid") -> None:
        super().__init__(message)
        self.detail = detail


class TokenVerifier:
    """Checks tokens that are meant for this server. `clock` gives seconds since 1970."""

    def __init__(self, audience: str, clock: Callable[[], float] = time.time) -> None:
        self._audience = audience
        self._clock = clock

    def verify(self, token: str, callers: Callers) -> Claims:
        """Who made it, and for what. TokenRefused."""
        kid = _check_form(token)
        found = callers.by_kid(kid)
        payload = _decrypt(token, found[1] if found else _NOBODYS_KEY)
        if found is None or payload is None:
            known = "it is not encrypted with the key" if found else "there is no key"
            raise TokenRefused(f"{known} {kid}")
        claims = _strict_json(payload, f"the payload of a token of {kid}")
        return self._check_claims(claims, *found)

    def _check_claims(self, claims: dict[str, Any], entry: CallerEntry, key: Key) -> Claims:
        now, who = self._clock(), f"{entry.name}'s token, key {key.kid}:"
        if not entry.enabled:
            raise TokenRefused(f"{who} the caller is disabled")
        if not key.usable(now):
            raise TokenRefused(f"{who} the key's not_after has passed")
        if claims.get("sub") != entry.name:
            raise TokenRefused(f"{who} sub is not the key's caller")
        if claims.get("aud") not in (self._audience, [self._audience]):
            raise TokenRefused(f"{who} aud is not {self._audience}")
        token_id, scope = claims.get("jti"), claims.get("scope")
        if not isinstance(token_id, str) or not _TOKEN_ID.fullmatch(token_id):
            raise TokenRefused(f"{who} jti is not 1 to {LONGEST_TOKEN_ID} visible ASCII characters")
        if "scope" in claims and scope != "read":
            raise TokenRefused(f"{who} scope is not 'read'")
        expiry = _check_times(claims, now, who)
        return Claims(entry, key.kid, token_id, expiry, read_only=scope == "read")


def _check_form(token: str) -> str:
    """The kid of something that is written as a token is. TokenRefused."""
    if len(token) > LONGEST_TOKEN:
        raise TokenRefused(f"a token of {len(token)} characters; at most {LONGEST_TOKEN} are looked at")
    match = _COMPACT.fullmatch(token)
    if not match:
        raise TokenRefused("no compact JWE with dir and A256GCM")
    header, *_ = [_canonical(part) for part in match.groups()]
    members = _strict_json(header, "the header")
    kid = members.pop("kid", None)
    if members.pop("typ", "JWT") != "JWT" or members != _ALGORITHMS:
        raise TokenRefused("the header is not of alg dir, enc A256GCM and kid alone")
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        raise TokenRefused("the kid is not one")
    return kid


def _canonical(part: str) -> bytes:
    """base64url, where each text of the same bytes but one is refused."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        decoded = b""
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise TokenRefused("not canonical base64url")
    return decoded


def _decrypt(token: str, key: Key) -> bytes | None:
    try:
        return jwe.decrypt_compact(token, key.jwk, registry=_REGISTRY).plaintext
    except (JoseError, ValueError):
        return None


def _strict_json(data: bytes, what: str) -> dict[str, Any]:
    """An object that every parser reads alike: no name twice, nothing that is no JSON."""
    try:
        parsed = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise TokenRefused(f"{what} is no strict JSON") from None
    if not isinstance(parsed, dict):
        raise TokenRefused(f"{what} is no JSON object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _check_times(claims: dict[str, Any], now: float, who: str) -> int:
    """When it expires, in nanoseconds since 1970. All else is right with it: so being late may be told apart."""
    issued, expiry = _time(claims, "iat", who), _time(claims, "exp", who)
    not_before = _time(claims, "nbf", who) if "nbf" in claims else issued
    if not 0 < expiry - issued <= LONGEST_LIFE_SECONDS:
        raise TokenRefused(f"{who} exp is not within {LONGEST_LIFE_SECONDS} s after iat")
    if now >= expiry + SKEW_SECONDS or max(issued, not_before) > now + SKEW_SECONDS:
        raise TokenRefused(
            f"{who} issued {now - issued:.0f} s ago, expired {now - expiry:.0f} s ago",
            f"the token has expired, or the clocks differ by more than {SKEW_SECONDS} s",
        )
    return int(expiry * 10**9)


def _time(claims: dict[str, Any], name: str, who: str) -> int | float:
    value = claims.get(name)
    # 1e999 is infinite, and True an int.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LATEST:
        raise TokenRefused(f"{who} {name} is no number of seconds since 1970")
    return value
