"""rexec's server as in production: callers with certificates, TLS, rules, an audit file; without --dev."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import psutil

from bench.candidates.rexec import CHANNEL_OPTIONS
from bench.lab import end
from bench.ports import free_port
from bench.verify import Wrong
from deploy.authority import Authority
from rexec_client import Client

_CALLER = "spiffe://rexec.bench/alice"
# The commands of the benchmarks. `python` is named by what it runs, as it could be told to run anything.
_RULES = """
[[rule]]
name = "true"
arguments = ["{true}"]
callers = ["alice"]
loader_ok = "it has no arguments"

[[rule]]
name = "cat"
arguments = ["/bin/cat", "{{file}}"]
callers = ["alice"]
output = "4G"
slots.file = {{ type = "pattern", pattern = '[!-~]{{1,200}}' }}

[[rule]]
name = "sleep"
arguments = ["/bin/sleep", "3600"]
callers = ["alice"]
"""


class ProductionServer:
    """One server and its files, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        authority = Authority("rexec bench authority")
        server, caller = authority.for_server("localhost", "127.0.0.1"), authority.for_caller(_CALLER)
        self._write("ca.pem", authority.certificate)
        for name, pair in (("server", server), ("alice", caller)):
            self._write(f"{name}.pem", pair.certificate)
            self._write(f"{name}.key", pair.key)
        self._write("callers.toml", f'[callers.alice]\nuris = ["{_CALLER}"]\n'.encode())
        self._write("policy.toml", _RULES.format(true="/bin/true").encode())
        self.target = f"localhost:{free_port()}"
        self.open_target = f"127.0.0.1:{free_port()}"
        self._write("rexec.toml", self._configuration().encode())
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rexec_server", "--config", str(directory / "rexec.toml")],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        if not any(re.search("listens on", line) for line in self._process.stdout):
            raise Wrong(f"the server did not start: {(directory / 'log').read_text()[-300:]}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def channel(self) -> grpc.Channel:
        """Connect as alice, by her certificate."""
        ca, key, certificate = ((self.directory / name).read_bytes() for name in ("ca.pem", "alice.key", "alice.pem"))
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.secure_channel(self.target, credentials, options=CHANNEL_OPTIONS)

    def client(self) -> Client:
        """As alice, by her certificate."""
        files = {name: self.directory / file for name, file in (("ca", "ca.pem"), ("cert", "alice.pem"))}
        return Client(self.target, **files, key=self.directory / "alice.key")

    def close(self) -> None:
        end(self._process)
        runner = psutil.Process(int((self.directory / "state" / "runner.pid").read_text()))
        for process in (*runner.children(recursive=True), runner):
            process.kill()
        psutil.wait_procs([runner], timeout=20)

    def _configuration(self) -> str:
        files = {name: str(self.directory / name) for name in ("server.pem", "server.key", "ca.pem")}
        settings = {
            "state_dir": str(self.directory / "state"),
            "callers": str(self.directory / "callers.toml"),
            "policy": str(self.directory / "policy.toml"),
            "audit": str(self.directory / "audit.jsonl"),
            "audience": "bench",
            "no_gateway": True,
            "keep_bytes": "100G",
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        tls = [f'tls_cert = "{files["server.pem"]}"', f'tls_key = "{files["server.key"]}"']
        lines += ["[[listener]]", f'address = "127.0.0.1:{self.target.rpartition(":")[2]}"', *tls]
        lines += [f'client_ca = "{files["ca.pem"]}"']
        # One for tokens, where strangers can begin a call.
        return "\n".join([*lines, "[[listener]]", f'address = "{self.open_target}"', *tls, ""])

    def _write(self, name: str, data: bytes) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
