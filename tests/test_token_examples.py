"""Tokens made in Node and in Go with stock JOSE libraries: a real server takes them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_client import Client, bearer
from tests.client.keys import Key
from tests.production.site import Site, running
from tests.test_examples import EXAMPLES, FOLLOW, needs_node, run

TOKEN = EXAMPLES / "node" / "token.js"
GO = EXAMPLES / "go"

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="no Go")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One production server for all of these tests."""
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def go_token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go example, built; skips where its one module is not here and cannot be fetched."""
    fetched = subprocess.run(["go", "mod", "download"], cwd=GO, capture_output=True, text=True, timeout=250)
    if fetched.returncode != 0:
        pytest.skip(f"Go cannot fetch the module: {fetched.stderr.strip()}")
    program = tmp_path_factory.mktemp("go") / "token"
    built = subprocess.run(
        ["go", "build", "-mod=readonly", "-o", program, "."], cwd=GO, capture_output=True, text=True, timeout=250
    )
    assert built.returncode == 0, built.stderr
    return str(program)


def check_tokens(key: Key, *maker: str | Path, **environment: str) -> None:
    """What `maker` prints is a token as servers accept it, and another one each time."""
    made = [run("", *maker, **environment) for _ in range(2)]
    assert [(one.returncode, one.stderr) for one in made] == [(0, ""), (0, "")]
    (header, claims), (_, others) = (key.open(one.stdout.removesuffix("\n")) for one in made)
    assert header == {"alg": "dir", "enc": "A256GCM", "kid": "alice-1"}
    assert claims.keys() == {"sub", "aud", "iat", "exp", "jti"}
    assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == ("alice", "build7", 60)
    assert abs(claims["iat"] - time.time()) < 30
    assert len(claims["jti"]) >= 22
    assert claims["jti"] != others["jti"]


def check_accepted(site: Site, *maker: str) -> None:
    """A real server takes what `maker` prints for alice, who may run a command with it."""
    token = run("", *maker).stdout.strip()
    with Client(f"localhost:{site.token_port}", credentials=bearer(token), ca=site.path("ca.pem")) as client:
        assert client.info().caller == "alice"
        assert client.run(["echo", "taken"]).stdout == b"taken\n"


def check_refusal(key: Key, *maker: str | Path) -> None:
    """A key that does not say whose it is gives one line and no token."""
    refused = run("", *maker)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "whose key it is" in refused.stderr
    assert key.encoded not in refused.stderr


@needs_node
def test_node_makes_tokens(site: Site, tmp_path: Path) -> None:
    """A token made in Node has what it must have, and no more, and a server takes it."""
    key, bare = Key(tmp_path / "alice.jwk"), Key(tmp_path / "bare.jwk", sub=None, aud=None)
    check_tokens(key, "node", TOKEN, key.path)
    check_tokens(bare, "node", TOKEN, bare.path, REXEC_CALLER="alice", REXEC_AUDIENCE="build7")
    check_refusal(bare, "node", TOKEN, bare.path)
    check_accepted(site, "node", str(TOKEN), site.key_file("alice"))


@needs_go
def test_go_makes_tokens(site: Site, go_token: str, tmp_path: Path) -> None:
    """A token made in Go has what it must have, and no more, and a server takes it."""
    key, bare = Key(tmp_path / "alice.jwk"), Key(tmp_path / "bare.jwk", sub=None, aud=None)
    check_tokens(key, go_token, "-key", key.path)
    check_tokens(bare, go_token, "-key", bare.path, "-caller", "alice", "-audience", "build7")
    check_refusal(bare, go_token, "-key", bare.path)
    check_accepted(site, go_token, "-key", site.key_file("alice"))


@needs_node
def test_node_runs_a_command_with_a_key(site: Site) -> None:
    """The Node example goes over TLS and proves who calls, with a fresh token for each of its calls."""
    files = {"REXEC_KEY_FILE": site.key_file("alice"), "REXEC_CA": site.path("ca.pem")}
    result = run(f"localhost:{site.token_port}", "node", FOLLOW, "echo", "from Node", **files)
    assert (result.returncode, result.stdout, result.stderr) == (0, "from Node\n", "")
