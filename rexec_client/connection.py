"""From what a caller says, and the environment, to where a server is, how it is reached, and as whom."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rexec_client.channel import is_local, resolve_target
from rexec_client.credentials import Credentials, anonymous, bearer
from rexec_client.errors import CredentialsError
from rexec_client.results import StrPath
from rexec_client.tls import Tls

# A compact JWE. A name is sent as it is, over plaintext too.
_TOKEN = re.compile(r"[\w-]+\.[\w-]*\.[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


@dataclass(frozen=True)
class Connection:
    """Everything that a channel and its calls need to be told."""

    target: str
    credentials: Credentials
    tls: Tls | None


def resolve(
    target: str | None,
    *,
    caller: str | None = None,
    key_file: StrPath | None = None,
    audience: str | None = None,
    ca: StrPath | None = None,
    cert: StrPath | None = None,
    key: StrPath | None = None,
    tls: bool | None = None,
    credentials: Credentials | None = None,
) -> Connection:
    """What is given counts first, then the environment: REXEC_TARGET, REXEC_CALLER, REXEC_KEY_FILE and so on.

    Raises:
        TypeError: what is given contradicts itself.
        CredentialsError: a file cannot be used, or a token would cross a network readable.
    """
    if credentials and (caller or key_file):
        raise TypeError("caller= and key_file= make credentials, credentials= are some: give one of them")
    place = resolve_target(target or from_environment("target"))
    files = _tls(tls, ca, cert, key)
    if credentials is None:
        caller = caller or from_environment("caller")
        if path := key_file or from_environment("key_file"):
            _refuse_plaintext(place, files)
            credentials = _token_credentials(path, caller, audience)
        else:
            credentials = _named(caller, files)
    return Connection(place, credentials, files)


def from_environment(name: str) -> str | None:
    """Return what $REXEC_NAME says; None when it is not set. CredentialsError when it is empty."""
    variable = f"REXEC_{name.upper()}"
    value = os.environ.get(variable)
    if value == "":  # set from something that is not there: going on without it would mean another server or caller
        raise CredentialsError(f"{variable} is empty: give it a value, or unset it")
    return value


def _tls(wanted: bool | None, ca: StrPath | None, cert: StrPath | None, key: StrPath | None) -> Tls | None:
    if wanted is False:
        if ca or cert or key:
            raise TypeError("tls=False is without certificates: leave out ca, cert and key")
        return None
    files = Tls(ca or from_environment("ca"), cert or from_environment("cert"), key or from_environment("key"))
    if files == Tls() and not wanted:
        return None
    files.check()
    return files


def _token_credentials(path: StrPath, caller: str | None, audience: str | None) -> Credentials:
    from rexec_client.tokens import key_file  # here: without a key file nothing of it is needed

    return key_file(path, caller, audience or from_environment("audience"))


def _refuse_plaintext(target: str, tls: Tls | None) -> None:
    if tls is None and not is_local(target):
        raise CredentialsError(
            f"others could read a token on its way to {target}: use TLS, with ca (--ca, REXEC_CA) or, "
            "for an authority that the system knows, tls=True (--tls)"
        )


def _named(caller: str | None, tls: Tls | None) -> Credentials:
    if caller and _TOKEN.fullmatch(caller):
        raise CredentialsError("caller (--caller, REXEC_CALLER) is a token, not a name: use key_file (--key-file)")
    if caller and tls is not None and tls.cert:
        raise CredentialsError(
            f"the certificate says who one is, and the name {caller} proves nothing: "
            "leave out caller (--caller, REXEC_CALLER)"
        )
    return bearer(caller) if caller else anonymous
