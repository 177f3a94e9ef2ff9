"""A listener's TLS, as gRPC takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

from rexec_server.policy.certificate import CertificateFiles, Pem


class ServerTls:
    """TLS from PEM files. With `client_ca`, callers need a certificate of that authority.

    A certificate that was renewed is used from the next connection on.
    """

    def __init__(self, certificate: str, key: str, client_ca: str | None = None) -> None:
        """ValueError when the files cannot be used; the message says which, and why."""
        self._files = CertificateFiles(certificate, key, client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """For one listener."""
        given = self._files.pem

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Asked before each handshake; None: as before."""
            nonlocal given
            pem = self._files.refresh()
            if pem is given:
                return None
            given = pem
            return _configuration(pem)

        # Its types do not say that None may be returned; its documentation does.
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(_configuration(given), fetcher, bool(self._files.client_ca))


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.chain)], pem.authority)
