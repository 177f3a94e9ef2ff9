"""The state directory belongs to one server at a time."""

from __future__ import annotations

import os

from rexec_server.core import pid_file


class StartRefused(Exception):
    """The server cannot start; the message says why, in one line."""


def claim(state_dir: str) -> int:
    """Makes the directory, and takes it for the life of this process. Returns the lock. StartRefused."""
    os.umask(0o077)
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        return pid_file.hold(f"{state_dir}/server.pid")
    except pid_file.Held as other:
        raise StartRefused(f"another rexec-server (pid {other.pid}) serves {state_dir}") from None
    except OSError as error:
        raise StartRefused(f"cannot use the state directory {state_dir}: {error.strerror}") from error
