"""Tokens made from a caller's key: what is in them, and what is said of a key that cannot be used."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as wire

from rexec_client import Client, CredentialsError, TokenCredentials, UnauthenticatedError, key_file
from tests.client.fakes import FakeServer, end, ended, execution, follow, refuse, reply, snapshot
from tests.client.keys import Key


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path / "alice.jwk")


def token_in(metadata: dict[str, str]) -> str:
    scheme, _, token = metadata["authorization"].partition(" ")
    assert scheme == "Bearer"
    return token


def test_a_token_names_caller_server_and_time(key: Key) -> None:
    """The header is exactly what servers accept; the claims are whose, for whom, when, and an id."""
    before = int(time.time())
    header, claims = key.open(key_file(key.path).token())
    assert header == {"alg": "dir", "enc": "A256GCM", "kid": "alice-1"}
    assert claims.keys() == {"sub", "aud", "iat", "exp", "jti"}
    assert (claims["sub"], claims["aud"]) == ("alice", "build7")
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] - claims["iat"] == 60
    assert len(base64.urlsafe_b64decode(claims["jti"] + "==")) >= 16


def test_what_the_file_leaves_out_is_given(tmp_path: Path) -> None:
    """A bare key needs a caller and a server; the server that is given wins over the one in the file."""
    bare = Key(tmp_path / "bare.jwk", sub=None, aud=None, alg=None, enc=None)
    _, claims = bare.open(key_file(bare.path, "bob", "build8", read_only=True, lifetime=300).token())
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("bob", "build8", "read")
    assert claims["exp"] - claims["iat"] == 300
    full = Key(tmp_path / "full.jwk")
    assert full.open(key_file(full.path, audience="build8").token())[1]["aud"] == "build8"


def test_each_token_has_an_id_of_its_own_in_any_thread(key: Key) -> None:
    """Eight threads that share credentials never get the same token, and each token is good."""
    credentials = key_file(key.path)
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda _: credentials.token(), range(400)))
    assert len({key.open(token)[1]["jti"] for token in tokens}) == 400


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"kty": "RSA"}, '"kty" must be "oct"'),
        ({"kty": None}, '"kty" must be "oct"'),
        ({"alg": "A256KW"}, '"alg" must be "dir"'),
        ({"enc": "A128GCM"}, '"enc" must be "A256GCM"'),
        ({"kid": None}, '"kid", the name of the key, is missing'),
        ({"kid": 7}, '"kid" must be a string'),
        ({"k": "c2hvcnQ"}, '"k" has 5 bytes; a key has 32'),
        ({"k": None}, '"k" has 0 bytes'),
        ({"k": "n o t"}, '"k" is not base64url'),
        ({"keys": []}, "it is a set of keys; give the file of one"),
        ({"sub": None}, 'whose key is alice-1? Its file has no "sub"'),
        ({"aud": None}, 'which server is the key alice-1 for? Its file has no "aud"'),
    ],
    ids=str,
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, members: dict[str, object], message: str) -> None:
    """What is wrong with the file is said in one line, which never repeats the key itself."""
    key = Key(tmp_path / "wrong.jwk", **members)
    with pytest.raises(CredentialsError) as refused:
        key_file(key.path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert key.encoded not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\xff\xfe", b"[1]", b"[" * 60_000, b"{}", b'{"a": "' + b"x" * 70_000]
)
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no JSON, no object, or far too large ends in one sentence, not in a traceback."""
    path = tmp_path / "other"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CredentialsError, match="is no caller's key"):
        key_file(path)


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    """Nobody has to guess which file was looked for."""
    with pytest.raises(CredentialsError, match=r"cannot read the key file .*/none\.jwk: No such file"):
        key_file(tmp_path / "none.jwk")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_read_is_refused(key: Key, mode: int) -> None:
    """Whoever can read it can act as the caller: it is refused, with the command that closes it."""
    key.path.chmod(mode)
    with pytest.raises(CredentialsError, match=rf"open to others \(mode {mode:04o}\); close it with: chmod go= "):
        key_file(key.path)


def test_a_key_belongs_to_one_caller(key: Key) -> None:
    """Another caller than the one in the file is a mistake that the server would only refuse."""
    with pytest.raises(CredentialsError, match=r"is alice's, and the caller is to be bob"):
        key_file(key.path, "bob")


@pytest.mark.parametrize("lifetime", [0, -1, 301])
def test_no_token_lives_longer_than_a_server_accepts(key: Key, lifetime: int) -> None:
    """Five minutes is the most, and less than a second is no token."""
    with pytest.raises(CredentialsError, match="1 to 300 seconds"):
        key_file(key.path, lifetime=lifetime)


def test_every_call_carries_a_fresh_token(fake: FakeServer, key: Key) -> None:
    """Start, its retry, follow and its resumption each mint one: none is used for two calls of a client."""
    fake.on("Exec", refuse(grpc.StatusCode.DEADLINE_EXCEEDED), reply(wire.ExecResponse(execution=execution())))
    fake.on("Follow", follow(snapshot(execution()), cut=grpc.StatusCode.UNAVAILABLE), follow(end(ended())))
    with Client(fake.target, key_file=key.path) as client:
        assert list(client.start(["true"], exec_id="x").output()) == []
    claims = [key.open(token_in(metadata))[1] for metadata in fake.metadata]
    assert len(claims) >= 4
    assert len({claim["jti"] for claim in claims}) == len(claims)
    assert {claim["sub"] for claim in claims} == {"alice"}


def test_a_refused_token_is_an_error_of_its_own(fake: FakeServer, key: Key) -> None:
    """A server that does not know the key says so; the client does not try again."""
    fake.on("GetServerInfo", refuse(grpc.StatusCode.UNAUTHENTICATED, "not authenticated"))
    with Client(fake.target, key_file=key.path) as client, pytest.raises(UnauthenticatedError):
        client.info()
    assert len(fake.metadata) == 1


def test_the_environment_says_what_arguments_do_not(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REXEC_KEY_FILE, REXEC_CALLER and REXEC_AUDIENCE stand in for arguments, and arguments win."""
    fake.on("GetServerInfo", reply(wire.GetServerInfoResponse()))
    of_environment, of_argument = (Key(tmp_path / name, sub=None, aud=None) for name in ("one", "two"))
    for name, value in (("TARGET", fake.target), ("KEY_FILE", str(of_environment.path)), ("CALLER", "carol")):
        monkeypatch.setenv(f"REXEC_{name}", value)
    monkeypatch.setenv("REXEC_AUDIENCE", "build9")
    with Client() as client:
        client.info()
    _, claims = of_environment.open(token_in(fake.metadata[-1]))
    assert (claims["sub"], claims["aud"]) == ("carol", "build9")
    with Client(key_file=of_argument.path, caller="dave", audience="here") as client:
        client.info()
    _, claims = of_argument.open(token_in(fake.metadata[-1]))
    assert (claims["sub"], claims["aud"]) == ("dave", "here")


def test_a_token_never_crosses_a_network_in_plaintext(key: Key) -> None:
    """Whoever listens on the way would be the caller for a minute: refused before anything is sent."""
    with pytest.raises(CredentialsError, match=r"others could read a token on its way to build7\.example\.org:50051"):
        Client("build7.example.org:50051", key_file=key.path)
    Client("unix:/run/rexec.sock", key_file=key.path).close()
    Client("build7.example.org:50051", key_file=key.path, tls=True).close()


def test_a_token_is_no_callers_name(key: Key) -> None:
    """A token where a name belongs would be sent with every call, also in plaintext; the refusal does not repeat it."""
    credentials = key_file(key.path)
    assert isinstance(credentials, TokenCredentials)
    for token in (credentials.token(), "a.b.c.d.e"):
        with pytest.raises(CredentialsError, match="is a token, not a name") as refused:
            Client("build7.example.org:50051", caller=token)
        assert token not in str(refused.value)
    Client("localhost:1", caller="a.b.c.d").close()


def test_credentials_and_what_would_make_them_exclude_each_other(key: Key) -> None:
    """A call has one caller: saying it in two ways is a mistake in the program."""
    credentials = key_file(key.path)
    assert isinstance(credentials, TokenCredentials)
    with pytest.raises(TypeError, match="give one of them"):
        Client(credentials=credentials, caller="alice")
    with pytest.raises(TypeError, match="give one of them"):
        Client(credentials=credentials, key_file=key.path)


def test_tokens_are_paid_for_only_by_whom_they_serve() -> None:
    """A client without a key file imports no cryptography; without the package a key file says what to install."""
    unused = "import sys; from rexec_client import Client; Client().close(); sys.exit('joserfc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", unused]).returncode == 0


def test_without_joserfc_it_says_what_to_install(key: Key) -> None:
    """The library alone makes no tokens, and names the extra that does."""
    code = (
        "import sys; sys.modules['joserfc'] = None; import rexec_client as r\n"
        "try: r.key_file(sys.argv[1])\nexcept r.CredentialsError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(key.path)], capture_output=True, text=True)
    assert "pip install 'rexec[tokens]'" in done.stdout, done.stderr


def test_the_secret_is_in_no_representation(key: Key) -> None:
    """What ends up in logs and tracebacks by accident shows no key."""
    credentials = key_file(key.path)
    shown = f"{credentials!r} {vars(credentials)!r} {json.dumps(str(credentials))}"
    assert key.encoded not in shown
    assert repr(key.secret) not in shown
