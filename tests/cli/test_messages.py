"""What a person reads when rexec itself fails: what is wrong, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from deploy.authority import Authority
from rexec_client.cli.app import run_app
from rexec_client.cli.explain import explain
from rexec_client.cli.settings import Settings
from rexec_client.errors import UnavailableError
from tests.client.fakes import FakeServer, refuse
from tests.client.keys import Key

CLOSED = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed"
WRONG = "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed: SSL_ERROR_SSL: SSL routines:WRONG_VERSION_NUMBER: OK"
DISTRUST = "UNKNOWN: Tls handshake failed: SSL_ERROR_SSL: SSL routines:CERTIFICATE_VERIFY_FAILED: unable to get: OK"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests says nothing here."""
    for name in ("TARGET", "CALLER", "KEY_FILE", "AUDIENCE", "CA", "CERT", "KEY"):
        monkeypatch.delenv(f"REXEC_{name}", raising=False)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[FakeServer]:
    """A server with TLS, of an authority that is in ca.pem."""
    authority = Authority()
    pair = authority.for_server("localhost")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    with FakeServer(grpc.ssl_server_credentials([(pair.key, pair.certificate)])) as server:
        yield server


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command says, without its mark."""
    assert run_app(list(arguments)) == 255
    told = capfd.readouterr()
    lines = [line.removeprefix("rexec: ") for line in told.err.splitlines() if line.startswith("rexec: ")]
    assert (told.out, len(lines)) == ("", 1), told.err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "text", "line"),
    [
        ([], "a token is needed", "a token is needed; give --key-file FILE (or --cert and --key)"),
        (
            ["--caller=alice"],
            "the token is not valid",
            "the token is not valid; --caller is for --dev; this server wants --key-file or --cert",
        ),
        (["--key-file=KEY"], "the token is not valid", "the token is not valid; the server's log says why"),
        (["--key-file=KEY"], "these rights were changed", "these rights were changed"),
    ],
    ids=["nothing", "name", "key", "other"],
)
def test_a_caller_who_is_not_let_in(
    fake: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], text: str, line: str
) -> None:
    """What would prove who calls is named, as far as it is not given yet; and no id of a command that never was."""
    key = Key(tmp_path / "alice.jwk")
    options = [option.replace("KEY", str(key.path)) if option == "--key-file=KEY" else option for option in options]
    fake.on("Exec", refuse(StatusCode.UNAUTHENTICATED, text))
    assert said(capfd, "--target", fake.target, *options, "run", "-n", "--", "ls") == line
    assert said(capfd, "--target", fake.target, *options, "exec", "--", "ls") == line


@pytest.mark.parametrize(
    "code", [StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT]
)
@pytest.mark.parametrize("command", ["run", "exec"])
def test_an_id_is_told_where_it_was_given(
    fake: FakeServer, capfd: pytest.CaptureFixture[str], code: StatusCode, command: str
) -> None:
    """Whoever gave it finds it again in the line; one that was made up here, for nothing, is left out."""
    fake.on("Exec", refuse(code, "no"))
    assert "(mine)" in said(capfd, "--target", fake.target, command, "--id", "mine", "ls")
    assert "(" not in said(capfd, "--target", fake.target, "--caller=a", command, "ls")


@pytest.mark.parametrize(
    "command", [["poll", "n1"], ["follow", "n1"], ["cancel", "n1"], ["signal", "n1", "TERM"]], ids=str
)
def test_an_execution_that_is_not_ones_own(
    fake: FakeServer, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """The way to another's is named, unless it was gone already."""
    for rpc in ("Poll", "Follow", "Cancel", "Signal"):
        fake.on(rpc, refuse(StatusCode.NOT_FOUND, "no execution 'n1'"))
    line = "no execution 'n1' of yours; an operator names another's with --owner NAME"
    assert said(capfd, "--target", fake.target, *command) == line
    assert said(capfd, "--target", fake.target, *command, "--owner", "bob") == "no execution 'n1'"


@pytest.mark.parametrize(
    ("settings", "text", "line"),
    [
        (Settings(), CLOSED, "it closed the connection; a server with TLS needs --ca FILE"),
        (Settings(tls=False), WRONG, "it closed the connection; a server with TLS needs --ca FILE"),
        (Settings(ca="ca"), CLOSED, "TLS failed; this address may want --cert and --key, or does not speak TLS"),
        (Settings(tls=True), WRONG, "TLS failed; this address may want --cert and --key, or does not speak TLS"),
        (Settings(cert="c", key="k"), CLOSED, "TLS failed; it may not take this certificate, or does not speak TLS"),
        (
            Settings(ca="ca"),
            DISTRUST,
            "its certificate is of another authority than --ca names, or for another address",
        ),
    ],
    ids=["none", "no tls", "ca", "tls", "cert", "distrust"],
)
def test_a_connection_that_tls_does_not_let_be(settings: Settings, text: str, line: str) -> None:
    """A short sentence about options instead of gRPC's long one about itself."""
    error = UnavailableError(text, code="UNAVAILABLE")
    assert explain(error, settings, may_name_owner=False) == f"no connection to the server: {line}"


def test_a_server_that_went_away_is_no_matter_of_tls() -> None:
    """A connection that was there and broke is a restart, with or without TLS."""
    error = UnavailableError("Socket closed", code="UNAVAILABLE")
    assert explain(error, Settings(), may_name_owner=False) == "no server, or it is restarting: Socket closed"


def test_real_connections_fail_in_these_words(
    fake: FakeServer, private: FakeServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """gRPC's texts are what they are taken for: TLS to a server without it, and the other way round."""
    (tmp_path / "other.pem").write_bytes(Authority("another").certificate)
    plain, tls = fake.target, private.target.replace("localhost", "127.0.0.1")
    assert "does not speak TLS" in said(capfd, f"--ca={tmp_path}/ca.pem", "--target", plain, "info")
    assert "needs --ca FILE" in said(capfd, "--target", tls, "info")
    assert "another authority" in said(capfd, f"--ca={tmp_path}/other.pem", "--target", tls, "info")


def test_a_handshake_that_fails_is_not_tried_for_long(
    fake: FakeServer, tmp_path: Path, private: FakeServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A start waits for a server that restarts; one that does not speak TLS is told at once, in one line."""
    line = said(capfd, f"--ca={tmp_path}/ca.pem", "--target", fake.target, "exec", "--", "ls")
    assert "does not speak TLS" in line
