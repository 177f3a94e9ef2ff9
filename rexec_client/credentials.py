"""Who the caller is: metadata for each call. Tokens, which prove it, are made in tokens.py."""

from __future__ import annotations

from collections.abc import Callable

Metadata = tuple[tuple[str, str], ...]

Credentials = Callable[[], Metadata]
"""Called once for every call, so that each may have a fresh token. Must be quick, and safe in any thread."""


def bearer(name: str) -> Credentials:
    """The same `authorization: Bearer NAME` on each call: with a server in --dev mode, the caller's name."""
    metadata = (("authorization", f"Bearer {name}"),)
    return lambda: metadata


def anonymous() -> Metadata:
    """No credential: with a server in --dev mode, the caller `dev`."""
    return ()
