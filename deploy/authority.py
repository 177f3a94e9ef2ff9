"""A throwaway certificate authority, for examples and tests. Nothing that matters should trust it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates for servers and callers."""

    def __init__(self, name: str = "rexec example authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = _pem(self._build(self._name, self._key, [], authority=True))

    def for_server(self, *names: str) -> Pair:
        """For host names and addresses."""
        return self._issue(names[0], [_host(name) for name in names])

    def for_caller(self, uri: str, *, days: float = 30, common_name: str = "caller") -> Pair:
        """For a caller who is known by a URI, such as spiffe://example.org/alice. Negative `days`: it has expired."""
        return self._issue(common_name, [x509.UniformResourceIdentifier(uri)] if uri else [], days)

    def _issue(self, common_name: str, names: Sequence[x509.GeneralName], days: float = 30) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(_name(common_name), key, names, days=days)
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return Pair(_pem(certificate), pem)

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        days: float = 30,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
