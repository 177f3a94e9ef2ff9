"""Callers as a file names them: their keys, the names of their certificates, and their roles."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from joserfc.jwk import OctKey

from rexec_server.policy.caller import EVERYBODY
from rexec_server.policy.files import PolicyError, read_private

CALLER_NAME = re.compile(r"[\x21-\x7e]{1,255}")
KEY_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SECRET_BYTES = 32  # A256GCM's key, RFC 7518 section 5.3
_ROLE = KEY_ID
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]{1,2048}")

T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    """What a caller's tokens are encrypted with. `not_after` is in seconds since 1970; None: for ever."""

    kid: str
    secret: bytes = field(repr=False)
    not_after: float | None = None

    @cached_property
    def jwk(self) -> OctKey:
        """The same for joserfc; making one costs half as much as checking a token."""
        return OctKey.import_key(self.secret)

    def usable(self, now: float) -> bool:
        """Whether it still is at this time, in seconds since 1970."""
        return self.not_after is None or now <= self.not_after


@dataclass(frozen=True)
class CallerEntry:
    """One caller: what proves it, and what it is."""

    name: str
    enabled: bool = True
    roles: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    keys: tuple[Key, ...] = ()


class Callers:
    """All callers, found by what a call presents. Never changes: a reload makes another one."""

    def __init__(self, entries: Iterable[CallerEntry], where: str = "callers") -> None:
        """PolicyError when two share a key or a certificate's name, or nobody is left; `where` is said in it."""
        self._by_name = {entry.name: entry for entry in entries}
        self._by_kid: dict[str, tuple[CallerEntry, Key]] = {}
        self._by_uri: dict[str, CallerEntry] = {}
        secrets: dict[bytes, str] = {}
        for entry in self._by_name.values():
            for key in entry.keys:
                place = f"{where}: {entry.name}'s key {key.kid}"
                _once(self._by_kid, key.kid, (entry, key), f"{place}: this kid is used twice; each key needs its own")
                other = secrets.get(key.secret)
                _once(secrets, key.secret, key.kid, f"{place} has the same secret as {other}; each key needs its own")
            for uri in entry.uris:
                _once(self._by_uri, uri, entry, f"{where}: the uri {uri} is given twice; it names one caller")
        if not any(entry.enabled for entry in self._by_name.values()):
            raise PolicyError(f"{where}: there is no enabled caller, so nobody could be let in")

    @property
    def entries(self) -> tuple[CallerEntry, ...]:
        return tuple(self._by_name.values())

    def get(self, name: str) -> CallerEntry | None:
        return self._by_name.get(name)

    def by_kid(self, kid: str) -> tuple[CallerEntry, Key] | None:
        """Whose key this is, and the key."""
        return self._by_kid.get(kid)

    def by_uri(self, uri: str) -> CallerEntry | None:
        """Whose certificates have this name, compared character by character."""
        return self._by_uri.get(uri)

    @classmethod
    def load(cls, source: str | Mapping[str, Any]) -> Callers:
        """From a file that only we can read, or from the [callers] table itself. PolicyError."""
        if isinstance(source, str):
            return cls(_entries(_read(source), source), source)
        return cls(_entries(source, "callers"), "callers")


def _once(seen: dict[Any, T], name: Any, value: T, complaint: str) -> None:
    if name in seen:
        raise PolicyError(complaint)
    seen[name] = value


def _read(path: str) -> Mapping[str, Any]:
    try:
        tables = tomllib.loads(read_private(path).decode())
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} is not UTF-8") from error
    except RecursionError:
        raise PolicyError(f"{path}: something in it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{path} is not TOML: {error}") from None  # the cause holds the text, secrets and all
    _only(tables, {"callers"}, path)
    callers: Mapping[str, Any] = _typed(tables, "callers", dict, "a table for each caller", path, {})
    return callers


def _entries(callers: Mapping[str, Any], where: str) -> list[CallerEntry]:
    return [_entry(name, table, where) for name, table in callers.items()]


def _entry(name: str, table: Any, where: str) -> CallerEntry:
    if not CALLER_NAME.fullmatch(name) or name == EVERYBODY:
        raise PolicyError(f"{where}: {name!r} is no caller's name: 1 to 255 visible ASCII characters, and not '*'")
    where = f"{where}: callers.{name}"
    _only(table, {"roles", "enabled", "uris", "keys"}, where)
    keys = _typed(table, "keys", dict, "a table for each key", where, {})
    uris = _names(table, "uris", _URI, "URIs such as spiffe://example.org/alice", where)
    if not keys and not uris:
        raise PolicyError(f"{where} has neither keys nor uris, so nobody could be this caller")
    return CallerEntry(
        name,
        _typed(table, "enabled", bool, "true or false", where, True),
        _names(table, "roles", _ROLE, "names such as operator", where),
        uris,
        tuple(_key(kid, key, where) for kid, key in keys.items()),
    )


def _key(kid: str, table: Any, where: str) -> Key:
    if not KEY_ID.fullmatch(kid):
        raise PolicyError(f"{where}: {kid!r} is no kid: at most 64 of a-z 0-9 . _ - and no punctuation first")
    where = f"{where}.keys.{kid}"
    _only(table, {"secret", "not_after"}, where)
    return Key(kid, _secret(_typed(table, "secret", str, "a text", where), where), _not_after(table, where))


def _secret(text: str, where: str) -> bytes:
    """The canonical text of 32 bytes only: the same key never looks like two."""
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != SECRET_BYTES or base64.urlsafe_b64encode(secret).rstrip(b"=").decode() != text:
        raise PolicyError(
            f"{where}.secret must be {SECRET_BYTES} bytes as base64url without padding;"
            " `rexec-server keys new` makes one"
        )
    return secret


def _not_after(table: Mapping[str, Any], where: str) -> float | None:
    right = "a date and time with an offset, such as 2027-01-01T00:00:00Z"
    when = _typed(table, "not_after", datetime.datetime, right, where, None)
    if when is None:
        return None
    if when.tzinfo is None:
        raise PolicyError(f"{where}.not_after must be {right}")
    return float(when.timestamp())


_REQUIRED = object()


def _typed(table: Mapping[str, Any], name: str, kind: type, right: str, where: str, default: Any = _REQUIRED) -> Any:
    """A value of this type. What is wrong is said without the value: it may be a secret in the wrong place."""
    if name not in table:
        if default is _REQUIRED:
            raise PolicyError(f"{where}.{name} is missing; it must be {right}")
        return default
    if not isinstance(table[name], kind):
        raise PolicyError(f"{where}.{name} must be {right}")
    return table[name]


def _names(table: Mapping[str, Any], name: str, pattern: re.Pattern[str], right: str, where: str) -> frozenset[str]:
    given = _typed(table, name, list, f"a list of {right}", where, [])
    if not all(isinstance(item, str) and pattern.fullmatch(item) for item in given):
        raise PolicyError(f"{where}.{name} must be a list of {right}")
    if len(set(given)) != len(given):
        raise PolicyError(f"{where}.{name} has one name twice")
    return frozenset(given)


def _only(table: Any, known: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise PolicyError(f"{where} must be a table")
    for name in table:
        if name not in known:
            raise PolicyError(f"{where}: unknown key {name!r}; known are {', '.join(sorted(known))}")
