"""What a spool says of itself, in its file `about`: the version of its layout, and in which boot it was gone through.

The runner writes it when it has dealt with all that an earlier boot left. So in the boot that it names, nothing in the
spool is from before; and in another boot, what is not on record may be what a power cut took.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from rexec_server.core.durable import replace_file
from rexec_server.core.spool import read_file

ABOUT = "about"
# Of the layout in docs/protocol.md. A spool without the file is of the first.
SPOOL_VERSION = 1


class Newer(Exception):
    """Something was written by a newer rexec, and is not to be touched; the message says it in one line."""

    def __init__(self, what: str, version: int, known: int) -> None:
        super().__init__(
            f"{what} is of a newer rexec (version {version}; this one knows {known}): start that one again"
        )


class About(NamedTuple):
    """boot_id is empty when it is not known."""

    version: int = SPOOL_VERSION
    boot_id: str = ""

    @classmethod
    def read(cls, spool: int) -> About:
        """What is known of an open spool directory. A damaged file says nothing. Newer."""
        try:
            fields = json.loads(read_file(ABOUT, spool) or b"{}")
            about = cls(int(fields.get("version", SPOOL_VERSION)), str(fields.get("boot_id", "")))
        except (ValueError, TypeError, AttributeError):
            return cls()
        if about.version > SPOOL_VERSION:
            raise Newer("the spool", about.version, SPOOL_VERSION)
        return about

    def write(self, spool: int) -> None:
        """Returns when it is on disk. OSError."""
        replace_file(ABOUT, json.dumps(self._asdict()).encode() + b"\n", spool)
