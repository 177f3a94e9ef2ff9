"""TLS: whom a client trusts, what proves who it is, and what is said when a file is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as wire

from deploy.authority import Authority, Pair
from rexec_client import AsyncClient, Client, CredentialsError, UnavailableError
from tests.client.fakes import FakeServer, reply
from tests.client.keys import Key

ALICE = "spiffe://example.org/alice"


class Files:
    """An authority, a server's pair and a caller's pair, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        self.server = self.authority.for_server("localhost")
        self.ca = self.write("ca.pem", self.authority.certificate)
        self.cert, self.key = self.pair("alice", self.authority.for_caller(ALICE))

    def write(self, name: str, content: bytes) -> str:
        path = self.directory / name
        path.write_bytes(content)
        return str(path)

    def pair(self, name: str, pair: Pair) -> tuple[str, str]:
        return self.write(f"{name}.pem", pair.certificate), self.write(f"{name}-key.pem", pair.key)

    def server_credentials(self, *, ask: bool) -> grpc.ServerCredentials:
        pairs = [(self.server.key, self.server.certificate)]
        if not ask:
            return grpc.ssl_server_credentials(pairs)
        return grpc.ssl_server_credentials(pairs, self.authority.certificate, require_client_auth=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def private(files: Files) -> Iterator[FakeServer]:
    """A server with a certificate, for callers with tokens."""
    with FakeServer(files.server_credentials(ask=False)) as server:
        server.on("GetServerInfo", reply(wire.GetServerInfoResponse(version="1")))
        yield server


@pytest.fixture
def asking(files: Files) -> Iterator[FakeServer]:
    """A server that asks for a client certificate, and tells whose it was."""

    def who(request: wire.GetServerInfoRequest, context: grpc.ServicerContext) -> wire.GetServerInfoResponse:
        return wire.GetServerInfoResponse(caller=context.auth_context()["peer_spiffe_id"][0].decode())

    with FakeServer(files.server_credentials(ask=True)) as server:
        server.on("GetServerInfo", who)
        yield server


def test_a_server_of_ones_authority_is_trusted(private: FakeServer, files: Files, tmp_path: Path) -> None:
    """`ca` is all that a TLS connection needs, in both clients; a token then goes to wherever the server is."""
    key = Key(tmp_path / "alice.jwk")
    with Client(private.target, ca=files.ca, key_file=key.path) as client:
        assert client.info().version == "1"
    assert key.open(private.metadata[0]["authorization"].removeprefix("Bearer "))[1]["sub"] == "alice"

    async def ask() -> str:
        async with AsyncClient(private.target, ca=files.ca) as client:
            return (await client.info()).version

    assert asyncio.run(ask()) == "1"


def test_another_authoritys_server_is_refused(private: FakeServer, tmp_path: Path) -> None:
    """Neither another authority nor the system's makes this server trusted, and no plaintext call reaches it."""
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("another").certificate)
    for options in ({"ca": str(other)}, {"tls": True}, {}):
        with Client(private.target, timeout=10, **options) as client, pytest.raises(UnavailableError):
            client.info()
    assert private.metadata == []


def test_a_client_certificate_says_who_calls(asking: FakeServer, files: Files) -> None:
    """The name in the certificate is the caller, and nothing else is sent along."""
    with Client(asking.target, ca=files.ca, cert=files.cert, key=files.key) as client:
        assert client.info().caller == ALICE
    assert "authorization" not in asking.metadata[0]
    with Client(asking.target, ca=files.ca) as client, pytest.raises(UnavailableError):
        client.info()


def test_a_renewed_certificate_is_used_by_the_next_channel(asking: FakeServer, files: Files, tmp_path: Path) -> None:
    """Files are read when the channel is opened, not when the client is made."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for caller in ("bob", "carol"):
        pair = files.authority.for_caller(f"spiffe://example.org/{caller}")
        cert.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        if caller == "bob":
            client = Client(asking.target, ca=files.ca, cert=cert, key=key)
    with client:
        assert client.info().caller == "spiffe://example.org/carol"


def test_the_environment_names_the_files(asking: FakeServer, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """REXEC_CA, REXEC_CERT and REXEC_KEY stand in for arguments; tls=False leaves them aside."""
    for name in ("ca", "cert", "key"):
        monkeypatch.setenv(f"REXEC_{name.upper()}", getattr(files, name))
    with Client(asking.target) as client:
        assert client.info().caller == ALICE
    with Client(asking.target, tls=False) as client, pytest.raises(UnavailableError):
        client.info()
    with pytest.raises(TypeError, match="tls=False"):
        Client(asking.target, tls=False, ca=files.ca)


def test_a_wrong_file_is_told_before_anything_is_sent(files: Files) -> None:
    """Missing, not PEM, a pair that is none, half a pair: one line each."""
    nonsense = files.write("nonsense.pem", b"nonsense")
    _, bobs_key = files.pair("bob", files.authority.for_caller("spiffe://example.org/bob"))
    for options, message in (
        ({"ca": "/no/such/file"}, "cannot read /no/such/file: No such file"),
        ({"ca": nonsense}, "nonsense.pem holds no certificate in PEM"),
        ({"cert": files.cert, "key": bobs_key}, "are no pair"),
        ({"cert": nonsense, "key": files.key}, "are not both in PEM"),
        ({"cert": files.cert}, "go together"),
        ({"key": files.key}, "go together"),
        ({"cert": files.cert, "key": files.key, "caller": "alice"}, "the certificate says who one is"),
    ):
        with pytest.raises(CredentialsError) as refused:
            Client("localhost:1", **options)
        assert message in str(refused.value)


def test_a_key_with_a_password_is_refused_without_asking(files: Files) -> None:
    """Nobody is asked at the terminal in the middle of a program."""
    from cryptography.hazmat.primitives import serialization

    plain = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    locked = plain.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(CredentialsError, match="asks for a password"):
        Client("localhost:1", cert=files.cert, key=files.write("locked.pem", locked))
