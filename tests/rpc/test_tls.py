"""A listener's files: used, or refused with a line that names the one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.authority import Authority
from rexec_server.rpc.tls import ServerTls

AUTHORITY = Authority()
SERVER = AUTHORITY.for_server("localhost")
OTHER = AUTHORITY.for_server("localhost")


def write(directory: Path, name: str, data: bytes, mode: int = 0o600) -> str:
    path = directory / name
    path.touch(mode=0o600)
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate and its key that fit."""
    return write(tmp_path, "server.pem", SERVER.certificate, 0o644), write(tmp_path, "server.key", SERVER.key)


def refusal(*paths: str) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        ServerTls(*paths)
    return str(caught.value)


def test_files_that_fit_make_credentials(tmp_path: Path, pair: tuple[str, str]) -> None:
    """With and without an authority for callers; several listeners may share the files."""
    for tls in (ServerTls(*pair), ServerTls(*pair, write(tmp_path, "ca.pem", AUTHORITY.certificate))):
        assert tls.credentials()
        assert tls.credentials()


def test_t_cf_02_a_key_that_others_can_read_is_refused(pair: tuple[str, str]) -> None:
    """A key that somebody else may have copied proves nothing."""
    Path(pair[1]).chmod(0o644)
    assert refusal(*pair) == f"{pair[1]} can be read by others (mode 0644); chmod go= {pair[1]}"


def test_t_cf_02_missing_files(tmp_path: Path, pair: tuple[str, str]) -> None:
    """A path that leads nowhere is named."""
    nowhere = str(tmp_path / "nowhere")
    for paths in ((nowhere, pair[1]), (pair[0], nowhere), (*pair, nowhere)):
        assert refusal(*paths) == f"cannot read {nowhere}: No such file or directory"


def test_t_cf_02_files_that_do_not_fit(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Another certificate's key, an empty file, and text that is no PEM are found before anybody connects."""
    certificate, key = pair
    cannot = f"cannot use the certificate {certificate} with the key"
    other = write(tmp_path, "other.key", OTHER.key)
    assert refusal(certificate, other) == f"{cannot} {other}: KEY_VALUES_MISMATCH"
    empty = write(tmp_path, "empty", b"")
    assert refusal(certificate, empty).startswith(f"{cannot} {empty}: ")
    assert refusal(empty, key).startswith(f"cannot use the certificate {empty} with the key {key}: ")
    junk = write(tmp_path, "junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert refusal(junk, key).startswith(f"cannot use the certificate {junk} with the key {key}: ")


def test_t_cf_02_an_encrypted_key_is_refused_without_asking(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Nobody sits at a server's terminal to give a password."""
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(SERVER.key, None)
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    path = write(tmp_path, "encrypted.key", encrypted)
    assert refusal(pair[0], path).startswith(f"cannot use the certificate {pair[0]} with the key {path}: ")


@pytest.mark.parametrize("data", [b"", b"no PEM", b"\xff\xfe", SERVER.key])
def test_t_cf_02_an_authority_without_certificates(tmp_path: Path, pair: tuple[str, str], data: bytes) -> None:
    """An empty authority would let in nobody, or, with another library, everybody."""
    path = write(tmp_path, "ca.pem", data)
    assert refusal(*pair, path).startswith(f"{path} holds no certificates in PEM: ")


def test_t_cf_02_a_certificate_that_is_no_authority(tmp_path: Path, pair: tuple[str, str]) -> None:
    """A server's certificate in the place of the authority's is a mistake that would look like a network problem."""
    path = write(tmp_path, "ca.pem", OTHER.certificate)
    assert refusal(*pair, path) == f"{path} holds no certificate of an authority"


def test_t_cf_02_an_authority_that_others_can_change(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Who can write the authority's file decides who calls."""
    path = write(tmp_path, "ca.pem", AUTHORITY.certificate, 0o666)
    assert refusal(*pair, path).startswith(f"{path} can be written by others (mode 0666)")
