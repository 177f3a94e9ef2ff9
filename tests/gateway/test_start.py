"""With which flags `rexec-gateway` starts, and what it refuses."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import ssl
import subprocess
import sys
import termios
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from deploy.authority import Authority
from rexec_server.gateway.tls import Certificate
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
        path = directory / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)
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
        assert spy.calls == [("Poll", {"authorization": "Bearer me"})]
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
            path.with_suffix(".new").touch(mode=0o600)
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)

    def trusted(authority: Authority) -> bool:
        trust = ssl.create_default_context(cadata=authority.certificate.decode())
        try:
            with urllib.request.urlopen(f"{gateway.url}/openapi.json", context=trust, timeout=60) as answer:
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


def test_t_cf_02_a_renewed_key_that_others_can_read(certificates: Path, alone: StartAlone, tmp_path: Path) -> None:
    """It is not used, and the old one stays; once it is for us alone, it is."""
    new = Authority("new")
    pair = new.for_server("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key")}
    for name, path in files.items():
        shutil.copy(certificates / f"{name}.pem", path)
    gateway = alone("127.0.0.1:1", "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]))

    def seen() -> str:
        address = urlsplit(gateway.url)
        return ssl.get_server_certificate((str(address.hostname), int(address.port or 0)), timeout=60)

    old = seen()
    files["key"].chmod(0o644)
    files["key"].write_bytes(pair.key)
    files["cert"].write_bytes(pair.certificate)
    assert seen() == old
    assert "key.pem can be read by others (mode 0644)" in gateway.log
    files["key"].chmod(0o600)
    assert seen() == pair.certificate.decode()


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644, 0o660])
def test_t_cf_02_a_key_that_others_can_read(certificates: Path, tmp_path: Path, mode: int) -> None:
    """It is no key: the line names the file and says what would do."""
    key = Path(shutil.copy(certificates / "key.pem", tmp_path))
    key.chmod(mode)
    refusal = _refusal(certificates, "--target", "127.0.0.1:1", "--tls-cert", "cert.pem", "--tls-key", str(key))
    assert f"{key} can be read by others (mode {mode:04o}); chmod go= {key}" in refusal


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of root's")
@pytest.mark.parametrize(("group", "mode", "good"), [
    ("ours", 0o640, True), ("another", 0o640, False), ("ours", 0o644, False), ("ours", 0o660, False),
], ids=str)  # fmt: skip
def test_t_cf_02_a_key_of_roots(certificates: Path, tmp_path: Path, group: str, mode: int, good: bool) -> None:
    """Our own group may read it, as the server's own keys may be read, and nobody else."""
    key = Path(shutil.copy(certificates / "key.pem", tmp_path))
    os.chown(key, 0, os.getegid() if group == "ours" else os.getegid() + 1)
    key.chmod(mode)
    certificate = Certificate(str(certificates / "cert.pem"), str(key))
    with nullcontext() if good else pytest.raises(OSError, match="can be read by others"):
        certificate.context()


def test_t_cf_02_an_encrypted_key_is_refused_without_asking(certificates: Path, tmp_path: Path) -> None:
    """Nobody sits before a server to say its passphrase: neither the gateway asks for it nor a server that has one."""
    key, cert = tmp_path / "key.pem", certificates / "cert.pem"
    key.touch(mode=0o600)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", certificates / "key.pem", "-out", key, "-passout", "pass:secret"],
        check=True,
    )  # fmt: skip
    flags = ("--tls-cert", str(cert), "--tls-key", str(key))
    assert "cannot use the certificate" in at_a_terminal("rexec_server.gateway", "--target", "127.0.0.1:1", *flags)
    named = [flag.replace("--tls", "--gateway-tls") for flag in flags]
    dev = ("--dev", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state"), "--gateway", "127.0.0.1:0")
    assert f"cannot use {cert} with {key}" in at_a_terminal("rexec_server", *dev, *named)


def test_plain_http_on_a_port_with_tls(certificates: Path, alone: StartAlone) -> None:
    """It gets nothing, disturbs nobody, and leaves no traceback."""
    gateway = alone(
        "127.0.0.1:1", "--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem")
    )
    with pytest.raises((OSError, ssl.SSLError, urllib.error.HTTPError)) as plain:
        urllib.request.urlopen(gateway.url.replace("https", "http") + "/api/poll/me", timeout=60)
    if isinstance(plain.value, urllib.error.HTTPError):
        plain.value.close()
    trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with urllib.request.urlopen(f"{gateway.url}/openapi.json", context=trust, timeout=60) as answer:
        assert answer.status == 200
    assert "Traceback" not in gateway.log


def at_a_terminal(module: str, *flags: str) -> str:
    """The one line of a program that does not start, and that had somebody whom it could have asked."""
    ours, its = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *flags],
            stdin=its, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == 78, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def _refusal(directory: Path, *flags: str, **environment: str) -> str:
    """The one line of a gateway that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "rexec_server.gateway", "--listen", "127.0.0.1:0", *flags],
        capture_output=True, text=True, timeout=60, cwd=directory, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 78, done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr
