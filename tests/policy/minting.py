"""Tokens made by hand, byte for byte: also such as no library would make."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rexec_server.policy.callers import CallerEntry, Callers, Key

AUDIENCE = "host-a"
NOW = 1_800_000_000.0
HEADER = {"alg": "dir", "enc": "A256GCM", "kid": "alice-1"}
SECRETS = {kid: secrets.token_bytes(32) for kid in ("alice-1", "alice-2", "bob-1", "dora-1")}
ALICE = CallerEntry(
    "alice",
    roles=frozenset({"operator"}),
    uris=frozenset({"spiffe://rexec.test/alice"}),
    keys=(Key("alice-1", SECRETS["alice-1"], NOW + 1000), Key("alice-2", SECRETS["alice-2"])),
)
BOB = CallerEntry("bob", uris=frozenset({"spiffe://rexec.test/bob"}), keys=(Key("bob-1", SECRETS["bob-1"]),))
DORA = CallerEntry(
    "dora", enabled=False, uris=frozenset({"spiffe://rexec.test/dora"}), keys=(Key("dora-1", SECRETS["dora-1"]),)
)
CALLERS = Callers([ALICE, BOB, DORA])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def seal(header: bytes, payload: bytes, secret: bytes, iv: bytes | None = None) -> str:
    """A compact JWE with `dir` and GCM of these very bytes, whatever they say."""
    iv = iv or secrets.token_bytes(12)
    protected = b64(header)
    sealed = AESGCM(secret).encrypt(iv, payload, protected.encode())
    return f"{protected}..{b64(iv)}.{b64(sealed[:-16])}.{b64(sealed[-16:])}"


def claims(**changed: Any) -> dict[str, Any]:
    """alice's, right in all but what is changed; None leaves a claim out."""
    right = {"sub": "alice", "aud": AUDIENCE, "iat": int(NOW), "exp": int(NOW) + 60, "jti": secrets.token_hex(8)}
    return {name: value for name, value in (right | changed).items() if value is not None}


def token(
    kid: str = "alice-1", secret: bytes | None = None, header: dict[str, Any] | None = None, **changed: Any
) -> str:
    """A token of alice, right in all but what is changed."""
    protected = {name: value for name, value in (HEADER | {"kid": kid} | (header or {})).items() if value is not None}
    return seal(json.dumps(protected).encode(), json.dumps(claims(**changed)).encode(), secret or SECRETS[kid])


class Clock:
    """Says what it is told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
