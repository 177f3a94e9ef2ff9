"""A production server in a directory: its files, its callers' credentials, and the program itself."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
from joserfc import jwe
from joserfc.jwk import OctKey
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from deploy.authority import Authority, Pair
from tests.runner.harness import runs
from tests.waiting import eventually

AUDIENCE = "test-server"
DOMAIN = "spiffe://rexec.test"
# Who there is, and their roles. Each has a token key NAME-1 and a certificate.
CALLERS: dict[str, list[str]] = {"alice": [], "bob": [], "olga": ["operator"], "otto": ["operator"]}

# What alice and bob may run; tests that need other rules write their own.
RULES = """
[[rule]]
name = "echo"
arguments = ["/bin/echo", "{word}"]
callers = ["alice", "bob", "olga"]
slots.word = { type = "pattern", pattern = '[ -~]{0,200}', max_length = 200 }
[[rule.test]]
caller = "alice"
arguments = ["echo", "hi"]
expect = "allow"
[[rule.test]]
caller = "mallory"
arguments = ["echo", "hi"]
expect = "deny"

[[rule]]
name = "sleep"
arguments = ["/bin/sleep", "{seconds}"]
callers = ["alice", "bob"]
slots.seconds = { type = "int", min = 0, max = 600 }

[[rule]]
name = "cat"
arguments = ["/bin/cat"]
callers = ["alice"]
stdin = "open"

[[rule]]
name = "env"
arguments = ["/usr/bin/env"]
callers = ["alice"]
loader_ok = "its only argument list is empty"
environment_slots.TOKEN = { type = "pattern", pattern = '[!-~]{1,200}', secret = true }

[[rule]]
name = "count"
shell = "for i in 1 2 3; do echo $i; done"
callers = ["alice"]
"""


class Site:
    """Everything of one server. Change the files before `start`, or after it and then `reload`."""

    def __init__(self, directory: Path, *, rules: str = RULES, gateway: bool = False, **settings: object) -> None:
        """settings: further keys of the configuration."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.state_dir = directory / "state"
        self.audit = directory / "audit.jsonl"
        self.authority = Authority()
        self.certificates = {name: self.authority.for_caller(f"{DOMAIN}/{name}") for name in CALLERS}
        self.keys = {name: secrets.token_bytes(32) for name in CALLERS}
        self.disabled: set[str] = set()
        self.process: subprocess.Popen[str] | None = None
        self.token_port = self.certificate_port = 0
        self.prefix: tuple[str, ...] = ()  # of its command line
        self.gateway = ""  # its URL, when there is one
        self._channels: list[grpc.Channel] = []
        self._stubs: dict[str, api_grpc.ExecutionServiceStub] = {}
        server = self.authority.for_server("localhost", "127.0.0.1")
        self.write("ca.pem", self.authority.certificate)
        self.write("server.pem", server.certificate)
        self.write("server.key", server.key)
        self.write("policy.toml", rules.encode())
        self.write_callers()
        self.settings: dict[str, Any] = {
            "state_dir": str(self.state_dir),
            "callers": str(directory / "callers.toml"),
            "policy": str(directory / "policy.toml"),
            "audit": str(self.audit),
            "audience": AUDIENCE,
            "no_gateway": not gateway,
            "gateway": "127.0.0.1:0",
            **settings,
        }
        if gateway:
            self.settings |= {"gateway_tls_cert": self.path("server.pem"), "gateway_tls_key": self.path("server.key")}

    # --- files ---

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def write(self, name: str, data: bytes) -> str:
        """A file that only we can read. Returns its path."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return str(path)

    def write_callers(self) -> None:
        """callers.toml, as `keys`, `disabled` and CALLERS say."""
        lines = []
        for name, roles in CALLERS.items():
            secret = urlsafe_b64encode(self.keys[name]).rstrip(b"=").decode()
            lines += [
                f"[callers.{name}]",
                f"roles = {json.dumps(roles)}",
                f"enabled = {json.dumps(name not in self.disabled)}",
                f'uris = ["{DOMAIN}/{name}"]',
                f"[callers.{name}.keys.{name}-1]",
                f'secret = "{secret}"',
            ]
        self.write("callers.toml", "\n".join(lines).encode())

    def key_file(self, name: str) -> str:
        """A caller's key as `rexec-server keys new` writes it. Returns its path."""
        key = {
            "kty": "oct", "k": urlsafe_b64encode(self.keys[name]).rstrip(b"=").decode(), "kid": f"{name}-1",
            "alg": "dir", "enc": "A256GCM", "sub": name, "aud": AUDIENCE,
        }  # fmt: skip
        return self.write(f"{name}.jwk", json.dumps(key).encode())

    def certificate_files(self, name: str) -> tuple[str, str]:
        """A caller's certificate and key. Returns their paths."""
        pair = self.certificates[name]
        return self.write(f"{name}.pem", pair.certificate), self.write(f"{name}.key", pair.key)

    # --- the program ---

    def start(self, env: dict[str, str] | None = None) -> None:
        """Starts it, on the ports that it had before, and waits until it listens."""
        self._write_config()
        with open(self.path("server.log"), "a") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "rexec_server", "--config", self.path("rexec.toml")],
                stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(env or {})},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " listens on " in line, f"the server did not start: {line!r}\n{self.log}"
        addresses = line.partition(" listens on ")[2].strip().rstrip(".").split(", ")
        self.token_port, self.certificate_port = (int(address.rpartition(":")[2]) for address in addresses[:2])
        if not self.settings["no_gateway"]:
            self.gateway = self.process.stdout.readline().rpartition(" ")[2].strip()

    def refused(self) -> str:
        """Tries to start it. Returns the one line that it says instead, after exit code 78."""
        self._write_config()
        done = subprocess.run(
            [sys.executable, "-m", "rexec_server", "--config", self.path("rexec.toml")],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 78, (done.returncode, done.stdout, done.stderr)
        lines = [line for line in done.stderr.splitlines() if line.startswith("rexec-server: ")]
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return lines[0].removeprefix("rexec-server: ")

    def reload(self) -> None:
        """SIGHUP, and waits until it says that it has looked at all files."""
        assert self.process is not None
        before = self.log.count(" audit reopened") + self.log.count(" audit NOT reopened")
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.log.count(" audit reopened") + self.log.count(" audit NOT reopened") > before)

    def restart(self) -> None:
        """kill -9, and a new one on the same ports."""
        self.end(signal.SIGKILL)
        self.start()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends the server, and returns its exit code."""
        assert self.process is not None
        self._stubs.clear()  # their channels would wait before they look for the next server
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """Ends the server, its runner, and all they started."""
        for channel in self._channels:
            channel.close()
        ours = self._supervised()
        if self.process is not None:
            self.end()
        ours += self._supervised()
        for process in ours:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        eventually(lambda: not any(runs(process.pid) for process in ours))

    @property
    def log(self) -> str:
        return Path(self.path("server.log")).read_text()

    @property
    def audited(self) -> list[dict[str, Any]]:
        """The lines of the audit."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # --- calling it ---

    def token(self, name: str, key: bytes | None = None, header: dict[str, str] | None = None, **claims: Any) -> str:
        """A fresh token of a caller, as it should be but for what is given; a claim of None is left out."""
        now = int(time.time())
        payload = {
            "sub": name, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": secrets.token_hex(16), **claims,
        }  # fmt: skip
        payload = {claim: value for claim, value in payload.items() if value is not None}
        protected = {"alg": "dir", "enc": "A256GCM", "kid": f"{name}-1", **(header or {})}
        secret = OctKey.import_key(key or self.keys[name])
        return jwe.encrypt_compact(protected, json.dumps(payload).encode(), secret, algorithms=["dir", "A256GCM"])

    def bearer(self, name: str, **claims: Any) -> list[tuple[str, str]]:
        """Metadata with a fresh token."""
        return [("authorization", f"Bearer {self.token(name, **claims)}")]

    def stub(self) -> api_grpc.ExecutionServiceStub:
        """On the listener for tokens: each call gives its own metadata, see `bearer`."""
        return self._stub("", None)

    def certified(self, name: str) -> api_grpc.ExecutionServiceStub:
        """On the listener for certificates, with the caller's."""
        return self._stub(name, self.certificates[name])

    def channel(self, pair: Pair | None = None, authority: bytes | None = None) -> grpc.Channel:
        """To the listener for tokens, or, with a certificate, to the one for certificates."""
        port = self.certificate_port if pair else self.token_port
        credentials = grpc.ssl_channel_credentials(
            authority or self.authority.certificate, *((pair.key, pair.certificate) if pair else ())
        )
        options = [("grpc.enable_http_proxy", 0)]
        self._channels.append(grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options))
        return self._channels[-1]

    # --- below ---

    def _stub(self, name: str, pair: Pair | None) -> api_grpc.ExecutionServiceStub:
        if name not in self._stubs:
            self._stubs[name] = api_grpc.ExecutionServiceStub(self.channel(pair))
        return self._stubs[name]

    def _write_config(self) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items() if value is not None]
        if "listen" not in self.settings and "listener" not in self.settings:
            for port, extra in ((self.token_port, ""), (self.certificate_port, f'client_ca = "{self.path("ca.pem")}"')):
                lines += [
                    "[[listener]]",
                    f'address = "127.0.0.1:{port}"',
                    f'tls_cert = "{self.path("server.pem")}"',
                    f'tls_key = "{self.path("server.key")}"',
                    extra,
                ]
        self.write("rexec.toml", "\n".join(lines).encode())

    def _supervised(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = str(self.state_dir) in " ".join(process.cmdline())
                if mine and process.pid != os.getpid() and "rexec_server.runner" in " ".join(process.cmdline()):
                    found += [process, *process.children(recursive=True)]
        return found


@contextmanager
def running(directory: Path, **settings: Any) -> Iterator[Site]:
    """A server in this directory, for the time of the block; its tests share it, so ids are to be each test's own."""
    site = Site(directory, **settings)
    site.start()
    yield site
    site.close()
