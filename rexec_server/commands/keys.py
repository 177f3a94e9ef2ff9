"""`rexec-server keys`: makes the keys with which callers make tokens."""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import secrets
import time
from typing import Any

import click

from rexec_server.policy.caller import EVERYBODY
from rexec_server.policy.callers import CALLER_NAME, KEY_ID, SECRET_BYTES

_DAY_SECONDS = 86400
_LONGEST_DAYS = 36_500
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@click.group("keys")
def command() -> None:
    """Makes keys for callers."""


@command.command("new")
@click.option("--caller", required=True, metavar="NAME", help="Whose key it will be.")
@click.option("--kid", metavar="KID", help="The key's id. [the caller's name and today's date]")
@click.option("--audience", metavar="NAME", help="The server for which the caller's tokens are. [the client says]")
@click.option("--days", type=click.IntRange(1, _LONGEST_DAYS), metavar="N", help="How long it is good for. [for ever]")
@click.option("--out", metavar="FILE", help="The caller's key file. [NAME.jwk]")
def new(caller: str, kid: str | None, audience: str | None, days: int | None, out: str | None) -> None:
    """Writes a new key into a file for the caller, and prints what belongs into callers.toml."""
    if not CALLER_NAME.fullmatch(caller) or caller == EVERYBODY:
        raise click.BadParameter("1 to 255 visible ASCII characters, and not '*'", param_hint="--caller")
    kid = kid or _default_kid(caller)
    if not KEY_ID.fullmatch(kid):
        raise click.BadParameter("at most 64 of a-z 0-9 . _ - and no punctuation first", param_hint="--kid")
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    # RFC 7517; sub and aud are what the client puts into the tokens.
    key = {"kty": "oct", "k": secret, "kid": kid, "alg": "dir", "enc": "A256GCM", "sub": caller}
    path = out or f"{_plain(caller)}.jwk"
    _write(path, key | ({"aud": audience} if audience else {}))
    click.echo(_toml(caller, kid, secret, days))
    click.echo(
        f"{path} is {caller}'s alone: bring it there by a way that nobody else can read, and delete it here."
        " What is printed above belongs into callers.toml; then send SIGHUP to the server.",
        err=True,
    )


def _default_kid(caller: str) -> str:
    """Such as alice-20270131-3fa9: the end tells two of one day apart."""
    end = f"{time.strftime('%Y%m%d', time.gmtime())}-{secrets.token_hex(2)}"
    return f"{_plain(caller).lower()[: 63 - len(end)]}-{end}"


def _plain(caller: str) -> str:
    """A caller's name as a file may be called: spiffe://example.org/alice is one as well."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", caller).strip(".-_") or "caller"


def _write(path: str, key: dict[str, Any]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            json.dump(key, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(fd)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; --out names another file for the key") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None


def _toml(caller: str, kid: str, secret: str, days: int | None) -> str:
    """A table that may be added to a caller who is there already, and makes one who is not."""
    lines = [f"[callers.{_quoted(caller)}.keys.{_quoted(kid)}]", f'secret = "{secret}"']
    if days:
        end = datetime.datetime.fromtimestamp(time.time() + days * _DAY_SECONDS, datetime.UTC)
        lines.append(f"not_after = {end:%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines)


def _quoted(name: str) -> str:
    # In visible ASCII, JSON's way of quoting is TOML's too.
    return name if _BARE.fullmatch(name) else json.dumps(name)
