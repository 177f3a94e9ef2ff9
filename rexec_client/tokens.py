"""A fresh token for each call, made from a caller's key: a compact JWE that names caller, server and time."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

from rexec_client.caller_key import CallerKey, read_key
from rexec_client.credentials import Metadata
from rexec_client.errors import CredentialsError
from rexec_client.results import StrPath

if TYPE_CHECKING:
    from joserfc.jwk import OctKey

# Seconds for which a token is good. It need not outlive the call that it begins.
LIFETIME = 60
# No server accepts more.
LONGEST_LIFETIME = 300
_ID_BYTES = 16


class TokenCredentials:
    """Credentials that prove a caller: called for each call, in any thread; a token takes about 0.1 ms."""

    def __init__(
        self, key: CallerKey, caller: str, audience: str, *, read_only: bool = False, lifetime: float = LIFETIME
    ) -> None:
        """Say whose tokens for which server.

        Args:
            read_only: they start and end nothing.
            lifetime: seconds for which each is good, at most 300.

        Raises:
            CredentialsError: joserfc is not installed, or the lifetime is too long.
        """
        if not 1 <= lifetime <= LONGEST_LIFETIME:
            raise CredentialsError(f"a token lives for 1 to {LONGEST_LIFETIME} seconds, not {lifetime:g}")
        self._key = _imported(key)
        self._header = {"alg": "dir", "enc": "A256GCM", "kid": key.kid}
        self._claims = {"sub": caller, "aud": audience} | ({"scope": "read"} if read_only else {})
        self._lifetime = int(lifetime)

    def token(self) -> str:
        """One more token: another id each time, good from now on."""
        from joserfc import jwe

        now = int(time.time())
        fresh = {"iat": now, "exp": now + self._lifetime, "jti": secrets.token_urlsafe(_ID_BYTES)}
        algorithms = [self._header["alg"], self._header["enc"]]
        return jwe.encrypt_compact(self._header, json.dumps(self._claims | fresh), self._key, algorithms)

    def __call__(self) -> Metadata:
        return (("authorization", f"Bearer {self.token()}"),)


def key_file(
    path: StrPath,
    caller: str | None = None,
    audience: str | None = None,
    *,
    read_only: bool = False,
    lifetime: float = LIFETIME,
) -> TokenCredentials:
    """Credentials from a caller's key file.

    Args:
        path: a JWK, as `rexec-server keys new` writes it; only its owner may be able to read it.
        caller: whose key it is, where the file does not say.
        audience: the server's name for itself; otherwise the one in the file.
        read_only: its tokens start and end nothing.
        lifetime: seconds for which each token is good, at most 300.

    Raises:
        CredentialsError: the file cannot be used, or does not belong to this caller; or something is not known.
    """
    key = read_key(path)
    if caller and key.sub and caller != key.sub:
        raise CredentialsError(f"the key {key.kid} is {key.sub}'s, and the caller is to be {caller}: give one of them")
    caller, audience = caller or key.sub, audience or key.aud
    if not caller:
        raise CredentialsError(
            f'whose key is {key.kid}? Its file has no "sub": say it with caller=, --caller or REXEC_CALLER'
        )
    if not audience:
        raise CredentialsError(
            f'which server is the key {key.kid} for? Its file has no "aud": '
            "say it with audience=, --audience or REXEC_AUDIENCE"
        )
    return TokenCredentials(key, caller, audience, read_only=read_only, lifetime=lifetime)


def _imported(key: CallerKey) -> OctKey:
    try:
        from joserfc.jwk import OctKey
    except ImportError:
        raise CredentialsError("a key file needs one more package: pip install 'rexec[tokens]'") from None
    return OctKey.import_key(key.secret)
