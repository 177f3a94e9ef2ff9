"""`rexec-runner --state-dir DIR`: the program that owns every command."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
from typing import NoReturn

from rexec_client.version import __version__
from rexec_server import logs, notify
from rexec_server.core import pid_file
from rexec_server.core.about import About, Newer
from rexec_server.core.boot import boot_id
from rexec_server.core.spool import RUNNER_PID, SPOOL
from rexec_server.process import become_undumpable
from rexec_server.runner import cgroup, linux
from rexec_server.runner.estate import Standing
from rexec_server.runner.handover import Handover
from rexec_server.runner.heritage import Heritage
from rexec_server.runner.runner import Runner
from rexec_server.runner.server_user import ServerUser, open_state_dir
from rexec_server.runner.shim import Site
from rexec_server.runner.successor import CHECK, describe


def main() -> None:
    options = _parse(sys.argv[1:])
    logs.configure("rexec-runner", options.log_format, options.log_level)
    if not options.dev:
        become_undumpable()
    server = _server_user(options.server_user)
    if options.check:
        _check_spool(options.state_dir)
        sys.stdout.write(describe(__version__))
        return
    left = Handover.take()
    heritage = Heritage.put_aside(Heritage(*left.heritage) if left else None)
    if server:
        _share_group(server, options.server_user)
    state_dir, lock = (left.state_dir, left.lock) if left else _open_state_dir(options.state_dir, server, options.dev)
    _hold_spool(state_dir, options.state_dir, again=left is not None)
    standing = Standing(state_dir, lock, _current_directory(), __version__)
    os.chdir("/")
    linux.set_process_name("rexec-runner")
    linux.become_subreaper()
    site = Site(
        delegation=None if options.no_cgroup else cgroup.find_delegation(),
        boot_id=boot_id(),
        trusted_uids=frozenset({os.getuid(), *options.server_uid, *([server.uid] if server else [])}),
        heritage=heritage,
    )
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    gc.collect()
    gc.freeze()  # what is there now is never collected, so a collection in a shim does not copy these pages
    with contextlib.suppress(KeyboardInterrupt):
        Runner(standing, site, options.idle_exit, left).run()
    notify.stopping()


def _end(*_: object) -> NoReturn:
    """Nothing is waited for: shims go on, and the next runner finds them."""
    notify.stopping()
    sys.exit(0)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rexec-runner", description="Owns the commands that rexec-server starts.")
    parser.add_argument("--state-dir", required=True, metavar="DIR", help="the server's state directory")
    parser.add_argument(
        "--server-user", metavar="NAME|UID", help="the server's own user, for a runner that is root beside it"
    )
    parser.add_argument("--server-uid", type=int, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument(
        "--idle-exit", type=float, metavar="SECONDS", help="exit after this long without server and executions"
    )
    parser.add_argument("--no-cgroup", action="store_true", help="do not use a delegated cgroup")
    parser.add_argument("--log-format", choices=logs.STYLES, default="auto", help="auto: text at a terminal, else json")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info", help="the least that is logged")
    parser.add_argument("--dev", action="store_true", help="let debuggers of the same user look at runner and shims")
    parser.add_argument("--version", action="version", version=f"rexec-runner {__version__}")
    parser.add_argument(CHECK, action="store_true", help=argparse.SUPPRESS)  # whether an older one can become us
    return parser.parse_args(arguments)


def _server_user(name: str | None) -> ServerUser | None:
    """The user whose group is ours from here on; None when the server's user is ours."""
    if name is None:
        return None
    try:
        server = ServerUser.find(name)
    except (KeyError, OverflowError):
        _refuse(f"--server-user {name}: there is no such user; give the name or number of one that is there")
    return None if server.uid == os.geteuid() else server


def _check_spool(path: str) -> None:
    """Whether we could go on with it; looked up, as it is another's."""
    try:
        spool = os.open(f"{path}/{SPOOL}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        About.read(spool)
        os.close(spool)
    except Newer as newer:
        _refuse(f"cannot use {path}: {newer}")
    except OSError as error:
        _refuse(f"cannot use {path}: {error.strerror or error}")


def _share_group(server: ServerUser, name: str) -> None:
    try:
        server.share_group()
    except PermissionError:
        _refuse(f"--server-user {name}: only a runner that is root can serve another user's server")


def _current_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _open_state_dir(path: str, server: ServerUser | None, dev: bool) -> tuple[int, int]:
    """Opens it, and takes it for the life of this process: the directory, and the lock."""
    try:
        state_dir = open_state_dir(path, server, dev=dev)
        os.umask(0o027)
        lock = pid_file.hold(RUNNER_PID, dir_fd=state_dir)
    except pid_file.Held as other:
        _refuse(f"another runner (pid {other.pid}) serves {path}")
    except Newer as newer:
        _refuse(f"cannot use {path}: {newer}")
    except OSError as error:
        _refuse(f"cannot use {path}: {error.strerror or error}")
    return state_dir, lock


def _hold_spool(state_dir: int, path: str, *, again: bool) -> None:
    """Locks the spool itself too, for the life of this process: the lock in the state directory is a file's name."""
    spool = os.open(SPOOL, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state_dir)
    try:
        pid_file.hold_directory(spool, RUNNER_PID, state_dir)
    except pid_file.Held as other:
        if not again:  # our predecessor in this process had it until just now; a shim is yet to close its copy
            _refuse(f"another runner (pid {other.pid}) serves {path}")


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"rexec-runner: {why}\n")
    sys.exit(os.EX_CONFIG)


if __name__ == "__main__":
    main()
