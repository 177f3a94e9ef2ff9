"""Where a request came from: what the audit says of it, and which token started it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """How a caller proved who it is, and from where. Times are nanoseconds since 1970.

    A token starts one execution: `token_id` (its jti) is used up by that, until after `token_expiry`.
    """

    method: str = "dev"  # "dev", "token", "certificate", or "certificate+token"
    key_id: str = ""  # of the token's key; without a token, the certificate's name
    token_id: str = ""
    token_expiry: int = 0
    peer: str = ""  # as gRPC names it, such as ipv4:10.0.0.7:40212
