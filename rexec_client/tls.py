"""The files that make a channel private: whom to trust, and what proves who one is."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from rexec_client.errors import CredentialsError
from rexec_client.results import StrPath

# Where systems keep the authorities that they trust, when OpenSSL itself does not know.
_SYSTEMS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True)
class Tls:
    """Files in PEM, read for each channel: a renewed certificate is used by the next one.

    Attributes:
        ca: the authorities to trust; None: the system's.
        cert: the client's certificate, with what leads to its authority; None: it has none.
        key: the certificate's key.
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None

    def check(self) -> None:
        """Raise CredentialsError now for what would later only be a connection that fails."""
        if bool(self.cert) != bool(self.key):
            raise CredentialsError("a client certificate and its key go together: give cert and key")
        authorities, _, _ = self.read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca and authorities is not None:
            _check_authorities(context, self.ca, authorities)
        if self.cert and self.key:
            _check_pair(context, self.cert, self.key)

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, key, certificate; in the order that gRPC takes them."""
        authorities = _content(self.ca) if self.ca else _systems_authorities()
        return authorities, _content(self.key), _content(self.cert)


def _content(path: StrPath | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CredentialsError(f"cannot read {os.fspath(path)}: {error.strerror}") from None


def _systems_authorities() -> bytes | None:
    """gRPC's own list knows nothing of what an administrator added here; None leaves it to that, where no other is."""
    for path in (ssl.get_default_verify_paths().cafile, *_SYSTEMS):
        if path and os.path.isfile(path):
            return _content(path)
    return None


def _check_authorities(context: ssl.SSLContext, path: StrPath, content: bytes) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "replace"))
    except ssl.SSLError:
        raise CredentialsError(f"{os.fspath(path)} holds no certificate in PEM") from None


def _check_pair(context: ssl.SSLContext, cert: StrPath, key: StrPath) -> None:
    def no_password() -> str:  # or OpenSSL would ask at the terminal
        raise CredentialsError(f"{os.fspath(key)} asks for a password; only a key without one can be used")

    try:
        context.load_cert_chain(cert, key, password=no_password)
    except ssl.SSLError as error:
        what = "are no pair" if error.reason == "KEY_VALUES_MISMATCH" else "are not both in PEM"
        raise CredentialsError(f"{os.fspath(cert)} and {os.fspath(key)} {what}: a certificate and its key") from None
