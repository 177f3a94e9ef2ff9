"""What the gateway writes down: enough to see what happened, and never a token."""

from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateway.http import ask
from tests.waiting import eventually

HEADER, REST = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0", f"{'iv' * 8}.{'secret' * 10}.{'tag' * 7}"
TOKEN = f"{HEADER}..{REST}"
MARK = f"token:{hashlib.sha256(TOKEN.encode()).hexdigest()[:8]}"


class Broken:
    """The gateway that makes mistakes."""

    def __init__(self, directory: Path, style: str) -> None:
        self.style = style
        self._log = directory / "broken.log"
        with self._log.open("w") as log:
            command = [sys.executable, "-m", "tests.gateway.broken", style]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def raw(self, request: bytes) -> None:
        """Sends bytes, and reads the answer to its end."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as sock:
            sock.sendall(request)
            while sock.recv(65536):
                pass

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(params=["text", "json"])
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broken]:
    """Once with a log for people, once with one for programs."""
    gateway = Broken(tmp_path, request.param)
    yield gateway
    gateway.close()


def test_t_lg_02_no_token_is_in_any_log(broken: Broken) -> None:
    """Neither in good lines nor in bad ones: mistakes of the application and of the web server, with their tracebacks,
    paths that do not exist, requests that are none.
    """
    bearer = {"Authorization": f"Bearer {TOKEN}", "Referer": f"{broken.url}/api/poll/{TOKEN}"}
    paths = (
        "/api/poll/",
        "/api/",
        "/",
        "/api/none/",
        "/v1/info?token=",
        f"/broken/{TOKEN}?again=",
        "/torn/",
        "/static/",
    )
    for path in (start + TOKEN for start in paths):
        answer = ask(broken.url, "GET", path, headers=bearer)
        assert answer.status >= 400
        if path.startswith(("/broken", "/torn")):
            assert answer.status == 500
            assert HEADER.encode() not in answer.body
    ask(broken.url, "POST", f"/api/echo/{TOKEN}", {"token": TOKEN})
    broken.raw(f"GET /api/poll/{TOKEN} HTTP/9.9\r\n\r\n".encode())
    broken.raw(f"GET /api/poll/{TOKEN}\r\n\r\n".encode())
    broken.raw(f"{TOKEN} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    log = eventually(lambda: broken.log if broken.log.count("Traceback") >= 2 else "")
    for part in (HEADER, *REST.split("."), "secretsecret"):
        assert part not in log
    assert f"/broken/{MARK}" in log
    assert "GET /api/<mode>/<uuid> 503" in log
    assert "cannot serve {" in log


def test_t_lg_03_what_callers_send_makes_no_lines(broken: Broken) -> None:
    """A line break or an escape in a method, a name or a value neither begins a line nor reaches a terminal."""
    broken.raw(b"G\x1b[2J / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    ask(broken.url, "GET", "/broken/x%0a2026-01-01%20INFO%20forged%1b%5b2J")
    ask(broken.url, "POST", "/api/echo/me", {"x": "a\n2026-01-01 INFO forged\x1b[2J"})
    log = eventually(lambda: broken.log if "/api/<mode>/<uuid>" in broken.log else "")
    assert "\x1b" not in log
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01 INFO forged")]
