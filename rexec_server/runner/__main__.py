"""`rexec-runner --state-dir DIR`: the program that owns every command."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
from typing import NoReturn

from rexec_server.core import pid_file
from rexec_server.core.spool import SPOOL
from rexec_server.runner import cgroup, linux
from rexec_server.runner.heritage import Heritage
from rexec_server.runner.runner import Runner
from rexec_server.runner.shim import Site

# sysexits.h: the configuration does not allow to start.
EX_CONFIG = 78


def main() -> None:
    options = _parse(sys.argv[1:])
    try:
        state_dir = _open_state_dir(options.state_dir)
        pid_file.hold("runner.pid", dir_fd=state_dir)
    except pid_file.Held as other:
        _refuse(f"another runner (pid {other.pid}) serves {options.state_dir}")
    except OSError as error:
        _refuse(f"cannot use {options.state_dir}: {error.strerror or error}")
    os.chdir("/")
    os.umask(0o027)
    linux.set_process_name("rexec-runner")
    linux.become_subreaper()
    site = Site(
        cgroup_base=None if options.no_cgroup else cgroup.find_delegated(),
        boot_id=linux.boot_id(),
        trusted_uids=frozenset({os.getuid(), *options.server_uid}),
        heritage=Heritage.put_aside(),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    gc.collect()
    gc.freeze()  # what is there now is never collected, so a collection in a shim does not copy these pages
    with contextlib.suppress(KeyboardInterrupt):
        Runner(state_dir, site, options.idle_exit).run()


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rexec-runner", description="Owns the commands that rexec-server starts.")
    parser.add_argument("--state-dir", required=True, metavar="DIR", help="the server's state directory")
    parser.add_argument(
        "--server-uid", type=int, action="append", default=[], metavar="UID", help="a user whose server is trusted"
    )
    parser.add_argument(
        "--idle-exit", type=float, metavar="SECONDS", help="exit after this long without server and executions"
    )
    parser.add_argument("--no-cgroup", action="store_true", help="do not use a delegated cgroup")
    return parser.parse_args(arguments)


def _open_state_dir(path: str) -> int:
    os.makedirs(f"{path}/{SPOOL}", mode=0o750, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"rexec-runner: {why}\n")
    sys.exit(EX_CONFIG)


if __name__ == "__main__":
    main()
