"""A caller's key, read from the file that `rexec-server keys new` writes."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from rexec_client.errors import CredentialsError
from rexec_client.results import StrPath

KEY_BYTES = 32
# A key is about 200 bytes; whatever is larger is another file.
LARGEST_FILE = 64 * 1024


@dataclass(frozen=True)
class CallerKey:
    """A symmetric key, shared with the server, and what its file says of it.

    Attributes:
        sub: the caller whose key it is; empty when the file does not say.
        aud: the server that it is for, by the name that it goes by; empty when the file does not say.
    """

    kid: str
    secret: bytes = field(repr=False)
    sub: str = ""
    aud: str = ""


def read_key(path: StrPath) -> CallerKey:
    """The key in a file: a JWK of type oct with 256 bits.

    Raises:
        CredentialsError: there is no such file, it holds no such key, or others can read it.
    """
    try:
        data = _read_private(path)
    except OSError as error:
        raise CredentialsError(f"cannot read the key file {os.fspath(path)}: {error.strerror}") from None
    try:
        return _parse(data)
    except ValueError as error:
        raise CredentialsError(f"{os.fspath(path)} is no caller's key: {error}") from None


def _read_private(path: StrPath) -> bytes:
    with open(path, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            # Who may have read it may act as the caller: that is for its owner to know and to end.
            name = os.fspath(path)
            raise CredentialsError(f"{name} is open to others (mode {mode:04o}); close it with: chmod go= {name}")
        return file.read(LARGEST_FILE + 1)


def _parse(data: bytes) -> CallerKey:
    """ValueError says what is wrong, and never repeats what the file holds."""
    if len(data) > LARGEST_FILE:
        raise ValueError("it is too large")
    try:
        jwk = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON; `rexec-server keys new` writes such a file") from None
    if not isinstance(jwk, dict):
        raise ValueError("it is not a JSON object")
    if "keys" in jwk:
        raise ValueError("it is a set of keys; give the file of one")
    for name, value in (("kty", "oct"), ("alg", "dir"), ("enc", "A256GCM")):
        if jwk.get(name, "" if name == "kty" else value) != value:
            raise ValueError(f'"{name}" must be "{value}"')
    kid = _text(jwk, "kid")
    if not kid:
        raise ValueError('"kid", the name of the key, is missing')
    return CallerKey(kid, _secret(_text(jwk, "k")), _text(jwk, "sub"), _text(jwk, "aud"))


def _text(jwk: dict[str, Any], name: str) -> str:
    value = jwk.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string')
    return value


def _secret(encoded: str) -> bytes:
    try:
        secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError('"k" is not base64url') from None
    if len(secret) != KEY_BYTES:
        raise ValueError(f'"k" has {len(secret)} bytes; a key has {KEY_BYTES}')
    return secret
