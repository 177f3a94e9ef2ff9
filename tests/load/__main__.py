"""`make load`: many commands, many followers, many runs, and much output; prints what each costs, and what grew.

The numbers are this machine's. Each table is from a server of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.load import commands, followers, naive, pipes, soak, ssh
from tests.load.figures import Row, table
from tests.servers import Server

# Each session needs a client process of its own on this side.
MOST_SSH = 200


def main() -> None:
    options = _options()
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}", flush=True)
    for part in options.only or PARTS:
        print(table(part.capitalize(), PARTS[part](options)), flush=True)


def _commands(options: argparse.Namespace) -> Sequence[Row]:
    return _on_server(
        commands.flags(options.commands),
        lambda server: commands.measure_commands(server, options.commands, options.polls).rows(),
    )


def _followers(options: argparse.Namespace) -> Sequence[Row]:
    return _on_server(
        followers.flags(options.followers),
        lambda server: followers.measure_followers(
            server, options.followers, options.polls, options.lines, options.idle
        ).rows(),
    )


def _soak(options: argparse.Namespace) -> Sequence[Row]:
    warm_up = max(60, options.runs // 20)
    return _on_server(soak.FLAGS, lambda server: soak.measure_soak(server, options.runs, warm_up).rows())


def _naive(options: argparse.Namespace) -> Sequence[Row]:
    return naive.measure_naive(options.commands, options.commands, options.polls)


def _ssh(options: argparse.Namespace) -> Sequence[Row]:
    return ssh.measure_ssh(min(options.commands, MOST_SSH))


def _pipe(options: argparse.Namespace) -> Sequence[Row]:
    return pipes.measure_plain(options.gigabytes)


def _tls(options: argparse.Namespace) -> Sequence[Row]:
    return pipes.measure_tls(options.gigabytes)


PARTS: dict[str, Callable[[argparse.Namespace], Sequence[Row]]] = {
    "commands": _commands,
    "followers": _followers,
    "soak": _soak,
    "pipe": _pipe,
    "pipe-tls": _tls,
    "naive": _naive,
    "ssh": _ssh,
}


def _on_server(flags: Sequence[str], measure: Callable[[Server], Sequence[Row]]) -> Sequence[Row]:
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory) / "state", *flags)
        try:
            return measure(server)
        finally:
            server.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this, and not everything")
    parser.add_argument("--commands", type=int, default=1000, help="how many run at once [1000]")
    parser.add_argument("--followers", type=int, default=10_000, help="how many follow one command [10000]")
    parser.add_argument("--runs", type=int, default=10_000, help="how many short runs [10000]")
    parser.add_argument("--polls", type=int, default=300, help="polls that are timed [300]")
    parser.add_argument("--lines", type=int, default=11, help="lines that are timed to all followers [11]")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds in which the followers are left alone [20]")
    parser.add_argument("--gigabytes", type=int, default=10, help="how much goes through a slow pipe [10]")
    options = parser.parse_args()
    for name in ("gigabytes", "commands", "followers", "runs", "polls", "lines"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    return options


if __name__ == "__main__":
    main()
