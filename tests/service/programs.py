"""The programs as an installation has them, for an interpreter that every user may run."""

from __future__ import annotations

from pathlib import Path

_MODULES = {
    "rexec-runner": "rexec_server.runner",
    "rexec-server": "rexec_server",
    "rexec-gateway": "rexec_server.gateway",
}


def installed(directory: Path, python: str) -> Path:
    """Makes the directory with the three programs in it; it needs PYTHONPATH as tests.runner.users gives it."""
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for name, module in _MODULES.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {python} -P -m {module} "$@"\n')
        program.chmod(0o755)
    return directory
