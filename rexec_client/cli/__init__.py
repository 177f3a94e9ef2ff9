"""The `rexec` command. Nothing here imports gRPC until a command needs the server."""

from __future__ import annotations

import os
import sys


def _occupy_standard_descriptors() -> None:
    """A closed stdout stays unwritable: otherwise the next socket would get its number, and the output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number, which is this one


def main() -> None:
    """Entry point of the `rexec` script."""
    try:
        import click  # noqa: F401
    except ImportError:
        print("rexec: the command line needs two more packages: pip install 'rexec[cli]'", file=sys.stderr)
        sys.exit(255)
    from rexec_client.cli.app import run_app

    _occupy_standard_descriptors()
    sys.exit(run_app(sys.argv[1:]))
