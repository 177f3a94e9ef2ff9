"""`rexec-gateway`: the gateway alone, as a client of any rexec server."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import threading

import click

from rexec_client.version import __version__
from rexec_server.gateway.listener import listen as bind
from rexec_server.gateway.listener import url

EX_CONFIG = 78
DEFAULT_LISTEN = "127.0.0.1:3000"
DEFAULT_STREAMS = 256


@click.command(context_settings={"auto_envvar_prefix": "REXEC_GATEWAY", "help_option_names": ["-h", "--help"]})
@click.option("--target", required=True, metavar="ADDR", help="The rexec server: host:port or unix:PATH.")
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT")
@click.option("--listen-fd", type=int, hidden=True, help="A socket that listens already, instead of --listen.")
@click.option("--name", multiple=True, metavar="HOST", help="A host name under which it is known; may be repeated.")
@click.option("--tls-cert", type=click.Path(exists=True), metavar="FILE", help="Certificate chain (PEM): speak TLS.")
@click.option("--tls-key", type=click.Path(exists=True), metavar="FILE", help="The certificate's key (PEM).")
@click.option("--max-streams", type=click.IntRange(1, 4096), default=DEFAULT_STREAMS, show_default=True,
              help="Event streams, and calls that wait, at once; beyond, the answer is 503.")  # fmt: skip
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input does.")
@click.version_option(__version__, prog_name="rexec-gateway")
def main(
    target: str,
    listen: str,
    listen_fd: int | None,
    name: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    max_streams: int,
    with_parent: bool,
) -> None:
    """Serves rexec as JSON over HTTP, and a page to look at. It holds no credential: it passes on the caller's own."""
    if bool(tls_cert) != bool(tls_key):
        _refuse("--tls-cert and --tls-key go together")
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Each connection is a descriptor, and many systems begin with 1024.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Nothing here forks; gRPC's fork handlers would only cost time.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    try:
        listener = socket.socket(fileno=listen_fd) if listen_fd is not None else bind(listen)
    except (OSError, ValueError) as error:
        _refuse(f"cannot listen on {listen}: {error}")
    _run(listener, target, name, max_streams, tls_cert, tls_key, announce=not with_parent)


def _run(
    listener: socket.socket,
    target: str,
    names: tuple[str, ...],
    streams: int,
    cert: str | None,
    key: str | None,
    *,
    announce: bool,
) -> None:
    """Serves until SIGTERM or SIGINT."""
    from rexec_server.gateway.app import create
    from rexec_server.gateway.guard import own_names
    from rexec_server.gateway.web import Certificate, WebServer, serve

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C at a terminal reaches parent and child: the parent decides when its child ends.
    signal.signal(signal.SIGINT, (lambda *_: stop.set()) if announce else signal.SIG_IGN)

    host = listener.getsockname()[0]
    any_address = host in ("0.0.0.0", "::")  # noqa: S104 (a comparison)
    gateway = create(target, own_names(host, names), any_address=any_address, max_streams=streams)
    try:
        certificate = Certificate(cert, key) if cert and key else None
        server = WebServer(listener, gateway.app, streams, certificate)
    except OSError as error:
        _refuse(f"cannot use the certificate: {error}")
    thread = serve(server)
    if announce:
        print(f"rexec-gateway {__version__} listens on {url(listener, tls=bool(cert))}", flush=True)

    stop.wait()
    # Streams first: each ends at once, unfinished, and its follower resumes elsewhere.
    gateway.streams.close()
    server.stop()
    thread.join()
    gateway.upstream.close()


def _end_with_parent() -> None:
    """Whoever started us is gone: so is the server, and its successor needs our port."""
    while os.read(0, 1024):
        pass
    os._exit(0)


def _refuse(why: str) -> None:
    click.echo(f"rexec-gateway: {why}", err=True)
    sys.exit(EX_CONFIG)
