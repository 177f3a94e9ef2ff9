"""Makes a directory with everything that a server in production needs, as an example to look at and to try.

    python deploy/example.py DIR

As root it is for a server that runs as its own user, commands that run as another, and a runner that alone is root.
As anybody else it is for one user, who is all three.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from authority import Authority, Pair

TEMPLATES = Path(__file__).resolve().parent / "templates"
AUDIENCE = "rexec-example"
DOMAIN = "spiffe://example.org"
# Who there is, and their roles.
CALLERS = {"alice": "", "olga": "operator"}
KEY_DAYS = 30
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (a comparison)
# These paths stand in TOML and in lines for the shell.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]*")


class Owner(NamedTuple):
    """Who the server is, where that is not us."""

    name: str
    uid: int
    gid: int


class Example:
    """The directory, while it is made."""

    def __init__(self, directory: Path, server: Owner | None, command: str, address: str, ports: list[int]) -> None:
        """server: None: the server is ours. command: as whom commands run, if not as we do."""
        self.directory = directory
        self.server = server
        self.command = command
        self.address = address
        self.ports = ports
        self.authority = Authority()

    def make(self, hosts: list[str]) -> None:
        """hosts: the names and addresses under which the server is known."""
        os.umask(0o077)
        self._directory("", 0o755)
        self._directory("server", 0o750, group=True)
        self._directory("callers", 0o755)
        # The runner, where it is root, makes the spool in it.
        self._directory("state", 0o700, owner=True)
        self._directory("audit", 0o750, owner=True)
        self._directory("logs", 0o755)
        self._directory("supervisor", 0o700)
        self._write("ca.pem", self.authority.certificate, 0o644)
        self._write("logs/app.log", b"the first line\nthe second line\nthe last line\n", 0o644)
        self._pair("server/server", self.authority.for_server(*hosts), group=True)
        self._write("server/callers.toml", self._callers().encode(), group=True)
        for template in ("policy.toml", "rexec.toml"):
            self._write(f"server/{template}", self._filled(template, hosts).encode(), group=True)
        self._write("README.md", self._filled("README.md", hosts).encode(), 0o644)

    def _callers(self) -> str:
        """callers.toml, with a new key for each; and for each a directory with what proves who it is."""
        tables = ["# Who may call. Whoever has a secret from here is that caller: this file is the server's alone."]
        for name, roles in CALLERS.items():
            self._directory(f"callers/{name}", 0o700)
            self._pair(f"callers/{name}/{name}", self.authority.for_caller(f"{DOMAIN}/{name}"))
            tables += [f"[callers.{name}]", f"roles = [{_quoted(roles.split())}]", f'uris = ["{DOMAIN}/{name}"]']
            tables.append(_new_key(name, self.directory / f"callers/{name}/{name}.jwk"))
        return "\n".join(tables) + "\n"

    def _filled(self, template: str, hosts: list[str]) -> str:
        host = hosts[0] if self.address in EVERYWHERE else self.address
        certificates, tokens, gateway = (f"{self.address}:{port}" for port in self.ports)
        if template == "README.md":  # there they are what a client is told
            certificates, tokens, gateway = (f"{host}:{port}" for port in self.ports)
        values = {
            "TIER": _text("tier-users" if self.server else "tier-one"),
            "START": _text("start-users" if self.server else "start-one"),
            "DIR": str(self.directory),
            "BIN": str(Path(sys.executable).parent),
            "RUN_AS": f'run_as = "{self.command}"' if self.server else "# run_as needs a runner that is root",
            "AUDIENCE": AUDIENCE,
            "START_RUNNER": "false" if self.server else "true",
            "NAMES": _quoted(hosts),
            "TOKENS": tokens,
            "CERTIFICATES": certificates,
            "GATEWAY": gateway,
            "URL": f"https://{host}:{self.ports[2]}",
            "SERVER": self.server.name if self.server else "",
            "USER": self.server.name if self.server else pwd.getpwuid(os.geteuid()).pw_name,
            "LISTEN": f"{self.address}:{self.ports[2]}",
            "HOSTS": " ".join(hosts),
            "SUPERVISORD": str(TEMPLATES.parent / "supervisord.conf"),
            "GROUP": str(self.server.gid) if self.server else "",
            "COMMAND": self.command,
        }
        text = (TEMPLATES / template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text

    def _pair(self, name: str, pair: Pair, *, group: bool = False) -> None:
        self._write(f"{name}.pem", pair.certificate, group=group)
        self._write(f"{name}.key", pair.key, group=group)

    def _directory(self, name: str, mode: int, *, group: bool = False, owner: bool = False) -> None:
        path = self.directory / name
        path.mkdir(exist_ok=not name)
        self._give(path, mode, group, owner)

    def _write(self, name: str, content: bytes, mode: int = 0o600, *, group: bool = False) -> None:
        """group: the server reads it too, as its group, and cannot change it."""
        path = self.directory / name
        path.write_bytes(content)
        self._give(path, 0o640 if group and self.server else mode, group, owner=False)

    def _give(self, path: Path, mode: int, group: bool, owner: bool) -> None:
        if self.server and (group or owner):
            os.chown(path, self.server.uid if owner else -1, self.server.gid)
        path.chmod(mode)


def _new_key(caller: str, path: Path) -> str:
    """As anybody makes one: the key is written for the caller, and what belongs into callers.toml is returned."""
    command = [sys.executable, "-m", "rexec_server", "keys", "new", "--caller", caller, "--kid", f"{caller}-1"]
    command += ["--audience", AUDIENCE, "--days", str(KEY_DAYS), "--out", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _refuse(f"`rexec-server keys new` failed: {done.stderr.strip()}")
    return done.stdout


def _text(name: str) -> str:
    return (TEMPLATES / f"{name}.md").read_text().strip()


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def main() -> None:
    options = _options()
    directory = Path(os.path.abspath(options.directory))
    if not _PLAIN_PATH.fullmatch(str(directory)):
        _refuse(f"{directory} has characters that would have to be quoted; choose a plainer path")
    if directory.exists() and not directory.is_dir():
        _refuse(f"{directory} is no directory")
    if directory.exists() and any(directory.iterdir()):
        _refuse(f"{directory} is not empty; name a directory that is, or is not there yet")
    server = _server(options, directory) if os.geteuid() == 0 else None
    if server is None and (options.server_user or options.command_user):
        _refuse("only root can run the server and its commands as other users; leave out --server-user, --command-user")
    command = options.command_user or "nobody"
    if options.address in EVERYWHERE and not options.host:
        _refuse(f"with --address {options.address} say under which name clients call it: --host NAME")
    hosts = [*options.host, *(name for name in ("localhost", "127.0.0.1") if name not in options.host)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"cannot make {directory}: {error.strerror}")
    Example(directory, server, command, options.address, options.ports).make(hosts)
    _tell(directory, server, command)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes an example of rexec in production.")
    parser.add_argument("directory", metavar="DIR", help="is made; must be empty if it is there")
    parser.add_argument("--server-user", metavar="USER", help="as whom the server runs [daemon, if you are root]")
    parser.add_argument("--command-user", metavar="USER", help="as whom commands run [nobody, if you are root]")
    parser.add_argument("--host", metavar="NAME", action="append", default=[], help="a name or address of this machine")
    parser.add_argument("--address", default="127.0.0.1", help="where it listens [127.0.0.1]")
    parser.add_argument("--ports", type=int, nargs=3, default=[50051, 50052, 3000],
                        metavar=("CERTIFICATES", "TOKENS", "HTTPS"), help="[50051 50052 3000]")  # fmt: skip
    return parser.parse_args()


def _server(options: argparse.Namespace, directory: Path) -> Owner:
    found = []
    for name in (options.server_user or "daemon", options.command_user or "nobody"):
        try:
            found.append(pwd.getpwnam(name))
        except KeyError:
            _refuse(f"there is no user {name!r} here")
    server, command = found
    if 0 in (server.pw_uid, command.pw_uid) or server.pw_uid == command.pw_uid:
        _refuse("server and commands need two users, neither of them root: else a command could read the server's keys")
    above = next((path for path in directory.parents if not path.exists() or path.stat().st_mode & 0o001 == 0), None)
    if above and above.exists():
        _refuse(f"{server.pw_name} cannot get to {directory}, for only its owner may enter {above}")
    return Owner(server.pw_name, server.pw_uid, server.pw_gid)


def _python_is_private() -> bool:
    """Whether another user cannot get to the Python that runs this, and so to rexec in it."""
    python = Path(os.path.realpath(sys.executable))
    return any(path.stat().st_mode & 0o001 == 0 for path in (python, *python.parents))


def _tell(directory: Path, server: Owner | None, command: str) -> None:
    print(f"Made in {directory}:")
    for path in sorted(directory.rglob("*")):
        status = path.stat()
        owner = f"{pwd.getpwuid(status.st_uid).pw_name}:{grp.getgrgid(status.st_gid).gr_name}"
        print(f"  {status.st_mode & 0o777:04o} {owner:<16} {path.relative_to(directory)}{'/' if path.is_dir() else ''}")
    if server:
        print(f"The server is {server.name}, commands are {command}'s, and only rexec-runner is root.")
        if _python_is_private():
            python = os.path.realpath(sys.executable)
            print(f"But {server.name} may not run {python}: install rexec where every user can read it.")
    else:
        print("One user is server, runner and commands: they can read the server's keys. As root you get three users.")
    print(f"{directory}/README.md says how to start it and how to call it.")


def _refuse(why: str) -> NoReturn:
    sys.exit(f"example.py: {why}")


if __name__ == "__main__":
    main()
