"""Other users than the one that runs the tests: who they are, and programs that are theirs."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rexec_server.core.launch import Confinement

# Each system has them. One has the server, the other the commands.
SERVER, COMMAND = pwd.getpwnam("daemon"), pwd.getpwnam("nobody")
# The interpreter that runs the tests may be in somebody's home, where no other user gets to.
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
_ROOT = Path(__file__).resolve().parent.parent.parent

CONFINED = Confinement(
    user=COMMAND.pw_uid, group=COMMAND.pw_gid, groups=(), no_new_privileges=True, drop_capabilities=True
)


def prefix(user: pwd.struct_passwd, *flags: str) -> tuple[str, ...]:
    """What makes a command line that user's."""
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", *(flags or ("--clear-groups",)), "--")


def need_root() -> None:
    """Skips the test where other users, or the means to be one, are not to be had."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root, with setpriv of util-linux, can be other users")


@functools.cache
def environment() -> dict[str, str]:
    """With this, PYTHON runs rexec as any user; the test is skipped where that cannot be."""
    need_root()
    packages = [path for path in sys.path if path.endswith("site-packages")]
    path = ":".join([str(_ROOT), str(_ROOT / "protos"), *packages])
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    attempt = subprocess.run(
        [*prefix(SERVER), PYTHON, "-c", "import sys, grpc, rexec_server.runner; print(sys.version_info[:2])"],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
    )
    if attempt.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"{PYTHON} cannot run rexec as {SERVER.pw_name}: {attempt.stdout or attempt.stderr[-200:]}")
    return env
