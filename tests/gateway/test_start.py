"""With which flags `rexec-gateway` starts, and what it refuses."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from deploy.authority import Authority
from tests.gateway.alone import Alone
from tests.gateway.http import ask
from tests.gateway.spy import Spy

StartAlone = Callable[..., Alone]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and cert.pem with key.pem for this machine."""
    directory, authority = tmp_path_factory.mktemp("certificates"), Authority()
    pair = authority.for_server("localhost", "127.0.0.1")
    for name, content in (("ca", authority.certificate), ("cert", pair.certificate), ("key", pair.key)):
        (directory / f"{name}.pem").write_bytes(content)
    return directory


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--listen", "0.0.0.0:0"], "is not loopback, so it needs --tls-cert and --tls-key, or --behind-proxy"),
        (["--listen", "[::]:0"], "is not loopback"),
        (["--listen", "localhost"], "write host:port"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key go together"),
        (["--target", "build7.example.org:50051"], "others could read tokens on their way to build7.example.org:50051"),
        (["--target", "unix:/run/rexec.sock", "--target-tls"], "on which nobody speaks TLS"),
        (["--target-ca", "key.pem"], "key.pem holds no certificate"),
    ],
)
def test_t_cf_01_what_is_not_safe_does_not_start(certificates: Path, flags: list[str], sentence: str) -> None:
    """Exit code 78, and one line that says why and what would do."""
    target = [] if "--target" in flags else ["--target", "127.0.0.1:1"]
    assert sentence in _refusal(certificates, *target, *flags)


def test_t_cf_05_a_trace_that_shows_tokens(certificates: Path) -> None:
    """gRPC's traces write metadata down, so no gateway of a production server runs with them."""
    refusal = _refusal(certificates, "--target", "127.0.0.1:1", "--production", GRPC_TRACE="http")
    assert "GRPC_TRACE" in refusal


def test_behind_a_proxy_it_may_listen_everywhere(alone: StartAlone) -> None:
    """When it is said that a proxy speaks TLS for it."""
    port = alone("127.0.0.1:1", "--listen", "0.0.0.0:0", "--behind-proxy").url.rpartition(":")[2]
    assert ask(f"http://127.0.0.1:{port}", "GET", "/openapi.json").status == 200


def test_a_server_that_speaks_tls(certificates: Path, alone: StartAlone) -> None:
    """It is reached with the authority that was given, and a caller who shows nothing is told so by the gateway."""
    pair = grpc.ssl_server_credentials(
        [((certificates / "key.pem").read_bytes(), (certificates / "cert.pem").read_bytes())]
    )
    spy = Spy(pair)
    try:
        gateway = alone(spy.target, "--target-ca", str(certificates / "ca.pem"))
        assert ask(gateway.url, "GET", "/v1/info").status == 401
        assert spy.calls == []
        assert ask(gateway.url, "GET", "/api/poll/me").status == 401
        assert spy.calls == [("List", {"authorization": "Bearer me"})]
        # Somebody else's certificate is no server of ours: nothing is said to it.
        other = certificates / "other.pem"
        other.write_bytes(Authority("other").certificate)
        assert ask(alone(spy.target, "--target-ca", str(other)).url, "GET", "/api/poll/me").status == 503
        assert len(spy.calls) == 1
    finally:
        spy.close()


def test_a_renewed_certificate(alone: StartAlone, tmp_path: Path) -> None:
    """It is used from the next connection on; files that do not fit leave the old one in use."""
    old, new = Authority("old"), Authority("new")
    names = {"--tls-cert": tmp_path / "cert.pem", "--tls-key": tmp_path / "key.pem"}

    def write(certificate: bytes, key: bytes) -> None:
        for path, content in zip(names.values(), (certificate, key), strict=True):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)

    def trusted(authority: Authority) -> bool:
        trust = ssl.create_default_context(cadata=authority.certificate.decode())
        try:
            with urllib.request.urlopen(f"{gateway.url}/openapi.json", context=trust, timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    first, second = old.for_server("127.0.0.1"), new.for_server("127.0.0.1")
    write(*first)
    gateway = alone("127.0.0.1:1", *(text for flag, path in names.items() for text in (flag, str(path))))
    assert (trusted(old), trusted(new)) == (True, False)
    write(second.certificate, first.key)
    assert (trusted(old), trusted(new)) == (True, False)
    assert "certificate NOT reloaded" in gateway.log
    write(*second)
    assert (trusted(old), trusted(new)) == (False, True)


def test_plain_http_on_a_port_with_tls(certificates: Path, alone: StartAlone) -> None:
    """It gets nothing, disturbs nobody, and leaves no traceback."""
    gateway = alone(
        "127.0.0.1:1", "--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem")
    )
    with pytest.raises((OSError, ssl.SSLError, urllib.error.HTTPError)) as plain:
        urllib.request.urlopen(gateway.url.replace("https", "http") + "/api/poll/me", timeout=10)
    if isinstance(plain.value, urllib.error.HTTPError):
        plain.value.close()
    trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with urllib.request.urlopen(f"{gateway.url}/openapi.json", context=trust, timeout=10) as answer:
        assert answer.status == 200
    assert "Traceback" not in gateway.log


def _refusal(directory: Path, *flags: str, **environment: str) -> str:
    """The one line of a gateway that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "rexec_server.gateway", "--listen", "127.0.0.1:0", *flags],
        capture_output=True, text=True, timeout=20, cwd=directory, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 78, done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr
