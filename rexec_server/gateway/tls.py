"""The gateway's own TLS: a certificate and its key, read again when they were renewed."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from dataclasses import dataclass

from cheroot.ssl.builtin import BuiltinSSLAdapter

_log = logging.getLogger("rexec.gateway.tls")

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    chain: str
    key: str

    def context(self) -> ssl.SSLContext:
        """OSError when the files cannot be used."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.chain, self.key)
        return context

    def stamp(self) -> Stamp:
        """Changes when a file is replaced."""
        return tuple(_identity(path) for path in (self.chain, self.key))


class Tls(BuiltinSSLAdapter):
    """TLS whose handshake is made by the worker that reads first: the thread that accepts waits for nobody."""

    def __init__(self, certificate: Certificate) -> None:
        """OSError."""
        self._certificate = certificate
        self._seen = certificate.stamp()
        super().__init__(certificate.chain, certificate.key)
        self.context = certificate.context()

    def wrap(self, sock: socket.socket) -> tuple[socket.socket, dict[str, str]]:
        self._renew()
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def _renew(self) -> None:
        """While the new files do not fit together, the old ones stay in use."""
        stamp = self._certificate.stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.context = self._certificate.context()
        except OSError as error:
            _log.error("certificate NOT reloaded, the old one stays in use: %s", error)
        else:
            _log.info("certificate %s reloaded", self._certificate.chain)


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
