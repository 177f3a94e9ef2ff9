"""The gateway's own TLS: a certificate and its key, read again when they were renewed."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
from dataclasses import dataclass

from cheroot.ssl.builtin import BuiltinSSLAdapter

_log = logging.getLogger("rexec.gateway.tls")

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    chain: str
    key: str

    def context(self) -> ssl.SSLContext:
        """OSError when the files cannot be used."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _check_private(self.key)
        # The password: else OpenSSL asks for it, at the terminal.
        context.load_cert_chain(self.chain, self.key, password="")
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
        context = certificate.context()
        super().__init__(certificate.chain, certificate.key)
        self.context = context

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


def _identity(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    # Not of the content alone: a key that was refused for its mode or owner is looked at again when that changes.
    return (status.st_ino, status.st_ctime_ns, status.st_mode)


def _check_private(path: str) -> None:
    """OSError when others can read the file. Our own group may where it is root's, as the server's keys may be."""
    status = os.stat(path)
    ours = status.st_uid == 0 and status.st_gid == os.getegid()
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~(stat.S_IRGRP if ours else 0):
        raise OSError(f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go= {path}")
