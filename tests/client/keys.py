"""Callers' keys for tests, and what a server would read in their tokens."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from joserfc import jwe
from joserfc.jwk import OctKey

ALGORITHMS = ["dir", "A256GCM"]


class Key:
    """A new key of alice's for build7, and its file."""

    def __init__(self, path: Path, **members: Any) -> None:
        """`members` of the file replace the usual ones; None leaves one out."""
        self.path = path
        self.secret = os.urandom(32)
        self.encoded = base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()
        usual = {"kty": "oct", "k": self.encoded, "kid": "alice-1", "alg": "dir", "enc": "A256GCM"}
        usual |= {"sub": "alice", "aud": "build7"}
        self.text = json.dumps({name: value for name, value in (usual | members).items() if value is not None})
        path.write_text(self.text)
        path.chmod(0o600)

    def open(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims of a token; raises where it was not made with this key."""
        opened = jwe.decrypt_compact(token, OctKey.import_key(self.secret), algorithms=ALGORITHMS)
        return dict(opened.protected), json.loads(opened.plaintext or b"")
