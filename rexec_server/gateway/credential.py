"""The credential that a request shows, in its header or in its path. It is passed on as it is.

Of a token only the name of its key is looked at, which is not a secret: to count what one caller holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from dataclasses import dataclass

from flask import request

from rexec_server.gateway.problems import Problem, unauthenticated

# What stands in the path when the credential is in the header.
PLACEHOLDER = "-"
# A name in --dev, a token in production. No slash, no space, nothing that is more than a segment of a path. A token
# has two dots in a row, for its second part is empty: what may not be is a segment that is nothing but dots.
_UUID = re.compile(r"[A-Za-z0-9_~:@+=-][A-Za-z0-9._~:@+=-]{0,4095}")
_AUTHORIZATION = re.compile(r"[\x20-\x7e]{1,8192}")
# A compact JWE with a key that is agreed on: header, no encrypted key, IV, ciphertext, tag.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Credentials:
    """Finds a request's credential: the value of `authorization` for the server."""

    required: bool
    """Whether to answer who shows none by ourselves. In --dev it is the server that says who that is."""

    def in_header(self) -> str | None:
        """Problem when it is not readable, or missing though required."""
        value = request.headers.get("Authorization")
        if value is None and self.required:
            raise unauthenticated()
        if value is not None and not _AUTHORIZATION.fullmatch(value):
            raise unauthenticated()
        return value

    def in_path(self, name: str) -> str | None:
        """The uuid in the path, or the header where the path has the placeholder. Problem when both differ."""
        if not _UUID.fullmatch(name):
            raise Problem(400, "the uuid is 1 to 4096 letters, digits and ._~:@+=- and does not start with a dot")
        if name == PLACEHOLDER and (self.required or "Authorization" in request.headers):
            return self.in_header()
        if "Authorization" in request.headers and bearer_of(self.in_header()) != name:
            message = "the Authorization header and the uuid are two different credentials; beside the header, write -"
            raise Problem(400, message)
        return f"Bearer {name}"


def exec_id_for(value: str | None) -> str:
    """The id of what this credential starts.

    A token starts one execution, so its repeat is the same one and needs the same id; a name may start many.
    """
    token = bearer_of(value)
    if _TOKEN.fullmatch(token):
        return hashlib.sha256(token.encode()).hexdigest()[:32]
    return uuid.uuid4().hex


def holder_of(value: str | None) -> str:
    """Return the name to count slots under: the key of a token, of which each call may show another; else a name.

    The server has not looked at it yet. A wrong one is refused in a moment, and gives its slot back.
    """
    token = bearer_of(value)
    if _TOKEN.fullmatch(token):
        header = token.partition(".")[0][:1024]
        try:
            found = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        except (ValueError, RecursionError):
            return ""
        return f"key {found['kid']}"[:256] if isinstance(found, dict) and isinstance(found.get("kid"), str) else ""
    return f"name {token}"


def bearer_of(value: str | None) -> str:
    """What an authorization says after `Bearer`; empty when it says something else."""
    scheme, _, text = (value or "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""
