"""A listener's certificate, its key, and the authority of its callers: read again when they change.

The standard library only: also the ingress reads them, which knows no gRPC.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from typing import NamedTuple

from rexec_server.policy.files import PolicyError, read_private, read_trusted

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int, int], ...]


class Pem(NamedTuple):
    """The content of the files."""

    key: bytes
    chain: bytes
    authority: bytes | None


class CertificateFiles:
    """PEM files that fit together. With `client_ca`, callers need a certificate of that authority.

    While new files do not fit together, or cannot be read, the old ones stay in use.
    """

    def __init__(self, certificate: str, key: str, client_ca: str | None = None) -> None:
        """Load the files. ValueError when they cannot be used; the message says which, and why."""
        self.certificate, self.key, self.client_ca = certificate, key, client_ca
        self._lock = threading.Lock()  # gRPC asks from threads of its own
        self._seen: Stamp | None = None
        self.pem = self._load()

    def refresh(self) -> Pem:
        """Return the files as they are now; the same object as before when nothing has changed."""
        with self._lock:
            if self._stamp() != self._seen:
                try:
                    self.pem = self._load()
                    _log.info("certificate %s reloaded", self.certificate)
                except (OSError, ValueError) as error:
                    _log.error("certificate NOT reloaded, the old one stays in use: %s", error)
            return self.pem

    def _load(self) -> Pem:
        # Before they are read: what changes meanwhile is read again at the next handshake.
        self._seen = self._stamp()
        try:
            key, chain = read_private(self.key), read_trusted(self.certificate)
            authority = read_trusted(self.client_ca) if self.client_ca else None
        except PolicyError as error:
            raise ValueError(str(error)) from error
        _check_pair(self.certificate, self.key)
        if self.client_ca and authority is not None:
            _check_authority(self.client_ca, authority)
        return Pem(key, chain, authority)

    def _stamp(self) -> Stamp:
        """Return what changes when a file is replaced, or written. A missing file has one too: it is told once."""
        return tuple(_identity(path) for path in (self.certificate, self.key, self.client_ca) if path)


def _identity(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _check_pair(certificate: str, key: str) -> None:
    """Check that both belong together: gRPC takes any two files, and then fails each handshake without a word."""
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
