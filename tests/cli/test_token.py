"""`rexec token`, and the options that prove who calls."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rexec.v1 import execution_service_pb2 as wire

from rexec_client.cli.app import run_app
from rexec_client.cli.settings import Settings
from tests.client.fakes import FakeServer, reply
from tests.client.keys import Key

FAILED = 255


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path / "alice.jwk")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests says nothing here."""
    for name in ("TARGET", "CALLER", "KEY_FILE", "AUDIENCE", "CA", "CERT", "KEY"):
        monkeypatch.delenv(f"REXEC_{name}", raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that keeps what calls carry."""
    with FakeServer() as server:
        server.on("GetServerInfo", reply(wire.GetServerInfoResponse()))
        yield server


def sent(server: FakeServer, key: Key) -> dict[str, object]:
    """The claims of the newest call's token."""
    return key.open(server.metadata[-1]["authorization"].removeprefix("Bearer "))[1]


def test_it_prints_one_token(key: Key) -> None:
    """As a person types it: one line, which the server can read; another one each time."""
    line = [sys.executable, "-m", "rexec_client", "--key-file", str(key.path), "token"]
    printed = [subprocess.run(line, capture_output=True, text=True) for _ in range(2)]
    assert [(one.returncode, one.stderr) for one in printed] == [(0, ""), (0, "")]
    claims = [key.open(one.stdout.removesuffix("\n"))[1] for one in printed]
    assert [claim["sub"] for claim in claims] == ["alice", "alice"]
    assert claims[0]["jti"] != claims[1]["jti"]


def test_scope_and_life_are_chosen(key: Key, capfd: pytest.CaptureFixture[str]) -> None:
    """--read makes one that starts nothing, --ttl says how long it is good."""
    assert run_app(["--key-file", str(key.path), "token", "--read", "--ttl", "5m"]) == 0
    _, claims = key.open(capfd.readouterr().out.strip())
    assert (claims["scope"], claims["exp"] - claims["iat"]) == ("read", 300)


def test_options_win_over_variables(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """REXEC_KEY_FILE, REXEC_CALLER and REXEC_AUDIENCE are used where no option says otherwise."""
    one, two = (Key(tmp_path / name, sub=None, aud=None) for name in ("one", "two"))
    for name, value in (("KEY_FILE", str(one.path)), ("CALLER", "carol"), ("AUDIENCE", "build9")):
        monkeypatch.setenv(f"REXEC_{name}", value)
    assert run_app(["token"]) == 0
    _, claims = one.open(capfd.readouterr().out.strip())
    assert (claims["sub"], claims["aud"]) == ("carol", "build9")
    assert run_app(["--key-file", str(two.path), "--caller", "dave", "--audience", "here", "token"]) == 0
    _, claims = two.open(capfd.readouterr().out.strip())
    assert (claims["sub"], claims["aud"]) == ("dave", "here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["token"], "give --key-file"),
        (["--key-file", "/no/such/file", "token"], "cannot read the key file /no/such/file"),
        (["--key-file", "KEY", "token", "--ttl", "10m"], "1 to 300 seconds"),
        (["--key-file", "KEY", "--caller", "bob", "token"], "is alice's"),
        (["--key-file", "KEY", "--target", "build7.example.org:1", "info"], "others could read a token"),
        (["--ca", "/no/such/file", "info"], "cannot read /no/such/file"),
        (["--no-tls", "--ca", "KEY", "info"], "leave out --ca"),
        (["--cert", "KEY", "info"], "go together"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_255(
    key: Key, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A key, a file or a combination that cannot be used ends in one sentence, before anything is sent."""
    assert run_app([str(key.path) if word == "KEY" else word for word in arguments]) == FAILED
    told = capfd.readouterr()
    assert told.out == ""
    assert message in told.err
    assert told.err.count("\n") == 1
    assert key.encoded not in told.err


def test_every_command_proves_who_calls(server: FakeServer, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key file each call carries a token, with a name alone the name, and without either nothing."""
    assert run_app(["--target", server.target, "--key-file", str(key.path), "info"]) == 0
    assert sent(server, key)["sub"] == "alice"
    assert run_app(["--target", server.target, "--caller", "bob", "info"]) == 0
    assert server.metadata[-1]["authorization"] == "Bearer bob"
    assert run_app(["--target", server.target, "info"]) == 0
    assert "authorization" not in server.metadata[-1]
    monkeypatch.setenv("REXEC_CA", "/no/such/file")
    assert run_app(["--target", server.target, "--no-tls", "info"]) == 0


def test_a_line_to_paste_means_the_same_server_and_caller(server: FakeServer, key: Key) -> None:
    """What `rexec run` prints for coming back has every option that led to the server, and no secret."""
    settings = Settings(server.target, "alice", str(key.path), "build7", tls=False)
    line = settings.command_line("info")
    assert key.encoded not in line
    assert run_app(shlex.split(line)[1:]) == 0
    assert sent(server, key)["aud"] == "build7"
    with_files = Settings("build7:1", ca="a b.pem", cert="c.pem", key="k.pem", tls=True)
    words = shlex.split(with_files.command_line("follow", "ID"))
    assert words[1:6] == ["--target=build7:1", "--ca=a b.pem", "--cert=c.pem", "--key=k.pem", "--tls"]


def test_a_token_needs_no_grpc(key: Key) -> None:
    """Printing a token is quick: it loads neither gRPC nor protobuf."""
    code = (
        "import sys, rexec_client.cli.app as a; s = a.run_app(sys.argv[1:]);"
        "sys.exit(99 if {'grpc', 'google.protobuf', 'asyncio'} & set(sys.modules) else s)"
    )
    arguments = ["--key-file", str(key.path), "token"]
    assert subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True).returncode == 0
