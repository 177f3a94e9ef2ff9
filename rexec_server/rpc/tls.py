"""A listener's certificate, its key, and the authority of its callers: read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple, cast

import grpc

from rexec_server.policy.files import PolicyError, read_private, read_trusted

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int, int], ...]


class _Files(NamedTuple):
    """What was read, PEM."""

    key: bytes
    chain: bytes
    authority: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.authority)


class ServerTls:
    """TLS from PEM files. With `client_ca`, callers need a certificate of that authority.

    A certificate that was renewed is used from the next connection on. While the new files do not fit together, or
    cannot be read, the old ones stay in use.
    """

    def __init__(self, certificate: str, key: str, client_ca: str | None = None) -> None:
        """ValueError when the files cannot be used; the message says which, and why."""
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()  # gRPC asks from threads of its own
        self._seen: Stamp | None = None
        self._files = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """For one listener."""
        given = self._files

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Asked before each handshake; None: as before."""
            nonlocal given
            files = self._refresh()
            if files is given:
                return None
            given = files
            return files.configuration()

        # Its types do not say that None may be returned; its documentation does.
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(given.configuration(), fetcher, bool(self._client_ca))

    def _refresh(self) -> _Files:
        with self._lock:
            if self._stamp() != self._seen:
                try:
                    self._files = self._load()
                    _log.info("certificate %s reloaded", self._certificate)
                except (OSError, ValueError) as error:
                    _log.error("certificate NOT reloaded, the old one stays in use: %s", error)
            return self._files

    def _load(self) -> _Files:
        # Before they are read: what changes meanwhile is read again at the next handshake.
        self._seen = self._stamp()
        try:
            key, chain = read_private(self._key), read_trusted(self._certificate)
            authority = read_trusted(self._client_ca) if self._client_ca else None
        except PolicyError as error:
            raise ValueError(str(error)) from error
        _check_pair(self._certificate, self._key)
        if self._client_ca and authority is not None:
            _check_authority(self._client_ca, authority)
        return _Files(key, chain, authority)

    def _stamp(self) -> Stamp:
        """What changes when a file is replaced, or written. A missing file has one too, so that it is told once."""
        return tuple(_identity(path) for path in (self._certificate, self._key, self._client_ca) if path)


def _identity(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _check_pair(certificate: str, key: str) -> None:
    """gRPC takes any two files, and then fails each handshake without a word."""
    try:
        # The password: else OpenSSL asks for it, at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot use the certificate {certificate} with the key {key}: {_reason(error)}") from error


def _check_authority(path: str, pem: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=pem.decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no certificates in PEM: {_reason(error)}") from error
    if not context.cert_store_stats()["x509_ca"]:
        raise ValueError(f"{path} holds no certificate of an authority")


def _reason(error: Exception) -> str:
    return (isinstance(error, ssl.SSLError) and error.reason) or str(error)
