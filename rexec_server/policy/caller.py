"""Who calls, and whose executions that caller may touch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from rexec_server.core.errors import NotAllowed, NotFound, Unauthenticated

DEV_CALLER = "dev"
_DEV_NAME = re.compile(r"[\x21-\x7e]{1,255}")
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """One verified caller. An operator may see and end other callers' executions."""

    name: str
    operator: bool = False


class Authenticator(Protocol):
    """Decides from a call's credentials who calls. Unauthenticated when they prove nobody."""

    def authenticate(self, authorization: list[str]) -> Caller:
        """`authorization` has each value that the call gave under that name."""


class DevAuthenticator:
    """`--dev`: everybody is who they say they are; who says nothing is `dev`, an operator."""

    def authenticate(self, authorization: list[str]) -> Caller:
        if not authorization:
            return Caller(DEV_CALLER, operator=True)
        if len(authorization) > 1:
            raise Unauthenticated("authorization is given more than once")
        scheme, _, name = authorization[0].partition(" ")
        if scheme.lower() != "bearer" or not _DEV_NAME.fullmatch(name):
            raise Unauthenticated("authorization must be 'Bearer NAME' in --dev, NAME in visible ASCII characters")
        return Caller(name, operator=name == DEV_CALLER)


def owner(caller: Caller, requested: str, exec_id: str) -> str:
    """Whose execution a call means: the caller's own, or, for an operator, the requested caller's.

    This is the one place where ownership is decided. To anybody else another's execution looks like an unknown one.
    """
    if requested in ("", caller.name):
        return caller.name
    if not caller.operator:
        raise NotFound(exec_id)
    return requested


def listed_owner(caller: Caller, requested: str) -> str | None:
    """Whose executions a List means; None: everybody's."""
    if requested in ("", caller.name):
        return caller.name
    if not caller.operator:
        raise NotAllowed("only an operator may list another caller's executions")
    return None if requested == EVERYBODY else requested
