"""Who calls, and whose executions that caller may touch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from rexec_server.core.errors import NotAllowed, NotFound, Unauthenticated
from rexec_server.core.origin import Origin

DEV_CALLER = "dev"
_DEV_NAME = re.compile(r"[\x21-\x7e]{1,255}")
# A compact JWE: whoever sends one by mistake shall not find it as a name in lists.
_TOKEN = re.compile(r"[\w-]+\.[\w-]*\.[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
EVERYBODY = "*"
OPERATOR = "operator"
_OPERATORS = frozenset({OPERATOR})


@dataclass(frozen=True, slots=True)
class Caller:
    """One verified caller. An operator may see and end other callers' executions."""

    name: str
    roles: frozenset[str] = frozenset()
    read_only: bool = False  # the credential is good for looking only
    origin: Origin = Origin()

    @property
    def operator(self) -> bool:
        return OPERATOR in self.roles


@dataclass(frozen=True, slots=True)
class Presented:
    """What a call shows of its caller, unverified but for the certificate's names, which the TLS stack has verified."""

    authorization: tuple[str, ...]  # each value that was given under this name
    metadata_names: frozenset[str]
    uris: tuple[str, ...] | None  # URI names of the client's certificate; None: its listener asks for none
    peer: str  # as gRPC names it, such as ipv4:10.0.0.7:40212


class Authenticator(Protocol):
    """Decides from what a call presents who calls. One for all services and listeners."""

    def authenticate(self, presented: Presented) -> Caller:
        """Who calls. Unauthenticated when it proves nobody; NotAllowed when it proves somebody who is no caller."""

    def still_valid(self, caller: Caller) -> bool:
        """Whether a caller who was let in would still be, with the same roles: asked while a stream goes on."""


class DevAuthenticator:
    """`--dev`: everybody is who they say they are; who says nothing is `dev`, an operator."""

    def authenticate(self, presented: Presented) -> Caller:
        authorization, origin = presented.authorization, Origin("dev", peer=presented.peer)
        if not authorization:
            return Caller(DEV_CALLER, _OPERATORS, origin=origin)
        if len(authorization) > 1:
            raise Unauthenticated("authorization is given more than once")
        scheme, _, name = authorization[0].partition(" ")
        if scheme.lower() != "bearer" or not _DEV_NAME.fullmatch(name):
            raise Unauthenticated("authorization must be 'Bearer NAME' in --dev, NAME in visible ASCII characters")
        if _TOKEN.fullmatch(name):
            raise Unauthenticated("this is a token, and a server in --dev knows names only: authorization: Bearer NAME")
        return Caller(name, _OPERATORS if name == DEV_CALLER else frozenset(), origin=origin)

    def still_valid(self, caller: Caller) -> bool:
        return True


def owner(caller: Caller, requested: str, missing: NotFound) -> str:
    """Whose execution a call means: the caller's own, or, for an operator, the requested caller's; else `missing`.

    This is the one place where ownership is decided. To anybody else another's execution looks like an unknown one.
    """
    if requested in ("", caller.name):
        return caller.name
    if not caller.operator:
        raise missing
    return requested


def listed_owner(caller: Caller, requested: str) -> str | None:
    """Whose executions a List means; None: everybody's."""
    if requested in ("", caller.name):
        return caller.name
    if not caller.operator:
        raise NotAllowed("only an operator may list another caller's executions")
    return None if requested == EVERYBODY else requested
