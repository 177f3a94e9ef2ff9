"""`rexec-gateway`: the gateway alone, as a client of any rexec server."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any

import click

from rexec_client.channel import is_local
from rexec_client.errors import CredentialsError
from rexec_client.tls import Tls
from rexec_client.version import __version__
from rexec_server import logs, notify
from rexec_server.gateway.listener import is_loopback, url
from rexec_server.gateway.listener import listen as bind

DEFAULT_LISTEN = "127.0.0.1:3000"
DEFAULT_STREAMS = 256


@dataclass(frozen=True)
class Options:
    """What the flags say."""

    target: str
    target_tls: bool
    target_ca: str | None
    listen: str
    listen_fd: int | None
    name: tuple[str, ...]
    tls_cert: str | None
    tls_key: str | None
    behind_proxy: bool
    max_streams: int
    caller_streams: int | None
    with_parent: bool
    production: bool
    log_format: str
    log_level: str

    @property
    def tls(self) -> Tls | None:
        """How the server is reached; None: in plaintext."""
        return Tls(self.target_ca) if self.target_tls or self.target_ca else None

    @property
    def credential_required(self) -> bool:
        """A server in --dev speaks no TLS."""
        return self.production or self.tls is not None


@click.command(context_settings={"auto_envvar_prefix": "REXEC_GATEWAY", "help_option_names": ["-h", "--help"]})
@click.option("--target", required=True, metavar="ADDR", help="The rexec server: host:port or unix:PATH.")
@click.option("--target-tls", is_flag=True, help="The server speaks TLS, with a certificate that this system trusts.")
@click.option("--target-ca", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="The server speaks TLS, with a certificate of this authority (PEM).")  # fmt: skip
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT")
@click.option("--listen-fd", type=int, hidden=True, help="A socket that listens already, instead of --listen.")
@click.option("--name", multiple=True, metavar="HOST", help="A host name under which it is known; may be repeated.")
@click.option("--tls-cert", type=click.Path(exists=True), metavar="FILE", help="Certificate chain (PEM): speak TLS.")
@click.option("--tls-key", type=click.Path(exists=True), metavar="FILE", help="The certificate's key (PEM).")
@click.option("--behind-proxy", is_flag=True, help="Listen beyond loopback without TLS: a proxy speaks it for us.")
@click.option("--max-streams", type=click.IntRange(1, 4096), default=DEFAULT_STREAMS, show_default=True,
              help="Event streams, and calls that wait, at once; beyond, the answer is 503.")  # fmt: skip
@click.option("--caller-streams", type=click.IntRange(1, 4096), metavar="N",
              help="Of these, one caller's; beyond, the answer is 429.  [a quarter, and 16 at least]")  # fmt: skip
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input does.")
@click.option("--production", is_flag=True, help="The server is not in --dev: answer 401 to who shows no credential,"
              " without asking it; and let no debugger read our memory.")  # fmt: skip
@click.option("--log-format", type=click.Choice(logs.STYLES), default="auto", show_default=True)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.version_option(__version__, prog_name="rexec-gateway")
def main(**flags: Any) -> None:
    """Serves rexec as JSON over HTTP, and a page to look at. It holds no credential: it passes on the caller's own."""
    options = Options(**flags)
    _check(options)
    if options.credential_required:
        _protect()
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    logs.configure("rexec-gateway", options.log_format, options.log_level)
    # Each connection is a descriptor, and many systems begin with 1024.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Nothing here forks; gRPC's fork handlers would only cost time.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    _run(_listen(options), options)


def _check(options: Options) -> None:
    if bool(options.tls_cert) != bool(options.tls_key):
        _refuse("--tls-cert and --tls-key go together")
    try:
        if options.tls is not None:
            options.tls.check()
    except CredentialsError as error:
        _refuse(f"--target-ca: {error}")
    if options.tls is not None and options.target.startswith("unix:"):
        _refuse(f"--target {options.target} is a socket of this machine, on which nobody speaks TLS")
    if options.tls is None and not is_local(options.target):
        _refuse(f"others could read tokens on their way to {options.target}: use --target-ca FILE, or --target-tls")


def _listen(options: Options) -> socket.socket:
    """The socket that the server has bound for us, or one of our own."""
    try:
        if options.listen_fd is not None:
            return socket.socket(fileno=options.listen_fd)
        listener = bind(options.listen)
    except (OSError, ValueError) as error:
        _refuse(f"cannot listen on {options.listen}: {error}")
    if not (options.tls_cert or options.behind_proxy or is_loopback(listener.getsockname()[0])):
        _refuse(
            f"{options.listen} is not loopback, so it needs --tls-cert and --tls-key, or --behind-proxy where a proxy"
            " speaks TLS for it"
        )
    return listener


def _run(listener: socket.socket, options: Options) -> None:
    """Serves until SIGTERM or SIGINT."""
    from rexec_server.gateway.app import create
    from rexec_server.gateway.guard import own_names
    from rexec_server.gateway.tls import Certificate
    from rexec_server.gateway.web import PER_PEER, WebServer, serve

    announce, cert, key = not options.with_parent, options.tls_cert, options.tls_key
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C at a terminal reaches parent and child: the parent decides when its child ends.
    signal.signal(signal.SIGINT, (lambda *_: stop.set()) if announce else signal.SIG_IGN)

    host = listener.getsockname()[0]
    gateway = create(
        options.target,
        own_names(host, options.name),
        any_address=host in ("0.0.0.0", "::"),  # noqa: S104 (a comparison)
        max_streams=options.max_streams,
        caller_streams=options.caller_streams,
        tls=options.tls,
        credential_required=options.credential_required,
    )
    try:
        certificate = Certificate(cert, key) if cert and key else None
        per_peer = None if options.behind_proxy else PER_PEER
        server = WebServer(listener, gateway.app, options.max_streams, certificate, per_peer=per_peer)
    except OSError as error:
        _refuse(f"cannot use the certificate: {error}")
    thread = serve(server)
    if announce:
        where = url(listener, tls=bool(cert))
        print(f"rexec-gateway {__version__} listens on {where}", flush=True)
        notify.ready(f"listens on {where}")

    stop.wait()
    if announce:
        notify.stopping()
    # Streams first: each ends at once, unfinished, and its follower resumes elsewhere.
    gateway.streams.close()
    server.stop()
    thread.join()
    gateway.upstream.close()


def _protect() -> None:
    """Tokens pass through our memory: nobody who runs as our user reads it, and gRPC does not write them down."""
    from rexec_server.process import become_undumpable

    if os.environ.get("GRPC_TRACE"):
        _refuse("GRPC_TRACE makes gRPC write down tokens; unset it")
    become_undumpable()


def _end_with_parent() -> None:
    """Whoever started us is gone: so is the server, and its successor needs our port."""
    while os.read(0, 1024):
        pass
    os._exit(0)


def _refuse(why: str) -> None:
    click.echo(f"rexec-gateway: {why}", err=True)
    sys.exit(os.EX_CONFIG)
