"""The program: it serves sockets that listen already, for the server that started it."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from asyncio import sslproto

from rexec_server import logs
from rexec_server.ingress.bounds import Bounds
from rexec_server.ingress.listening import Ingress, Tls
from rexec_server.policy.certificate import CertificateFiles
from rexec_server.process import become_undumpable

# Each TLS connection has a buffer of this size, 256 KiB otherwise: a thousand of them took 320 MB.
_BUFFER = 32 * 1024


def main() -> None:
    options = _options()
    sslproto.SSLProtocol.max_size = _BUFFER
    become_undumpable()  # tokens pass through our memory, and the certificate's key is in it
    logs.configure("rexec-ingress", options.log_format, options.log_level)
    # Each connection is two descriptors, and many systems begin with 1024.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        tls = Tls(CertificateFiles(options.tls_cert, options.tls_key)) if options.tls_cert else None
    except (OSError, ValueError) as error:
        sys.exit(f"rexec-ingress: {error}")
    asyncio.run(_serve(options, tls))


async def _serve(options: argparse.Namespace, tls: Tls | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Ctrl-C at a terminal reaches parent and child, and SIGHUP may: the parent decides when its child ends.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop.add_reader(0, _end_with_parent)
    ingress = Ingress(options.target, tls, Bounds(options.connections))
    ingress.listen([socket.socket(fileno=fd) for fd in options.listen_fd])
    await stop.wait()
    await ingress.close()


def _end_with_parent() -> None:
    """End when standard input can be read: nothing is written to it, so that says that the server is gone."""
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rexec-ingress", description="Started by rexec-server; see docs/security.md.")
    parser.add_argument("--listen-fd", type=int, action="append", required=True)
    parser.add_argument("--target", required=True, metavar="PATH")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--log-format", choices=logs.STYLES, default="auto")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    return parser.parse_args()


if __name__ == "__main__":
    main()
