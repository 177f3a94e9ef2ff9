"""Takes a listener's connections, ends their TLS, and brings each to gRPC once its client has begun as it should."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import ssl
import time
from collections import Counter
from contextlib import suppress

from rexec_server.ingress.arrival import NotHttp2
from rexec_server.ingress.bounds import Bounds
from rexec_server.ingress.connection import Client, End
from rexec_server.peers import Open, Places, as_grpc_names_it, network
from rexec_server.policy.certificate import CertificateFiles, Pem

_log = logging.getLogger("rexec.ingress")

# The time that a connection may take from its first packet until its client has settled, TLS included.
ARRIVAL_SECONDS = 10.0
# Of a busy listener, before others get a turn.
_AT_ONCE = 64
_TELL_SECONDS = 60.0
# While there is no descriptor for one more connection, or gRPC's queue is full.
_PAUSE_SECONDS = 0.1


class Tls:
    """The certificate that the listener shows: the newest that can be used."""

    def __init__(self, files: CertificateFiles) -> None:
        """Load the files. OSError."""
        self._files = files
        self._pem: Pem = files.pem
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        pem = self._files.refresh()
        if pem is not self._pem:
            self._pem = pem
            try:
                self._context = self._load()
            except OSError as error:  # it was changed again in this moment, and will be looked at again
                _log.error("certificate NOT reloaded, the old one stays in use: %s", error)
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(self._files.certificate, self._files.key, password="")
        return context


class Ingress:
    """Serves listening sockets, until `close()` and then until the last connection has ended."""

    def __init__(self, target: str, tls: Tls | None, bounds: Bounds, seconds: float = ARRIVAL_SECONDS) -> None:
        """Make it. target: the path of the unix socket on which gRPC listens for us."""
        self._target, self._tls, self._seconds = target, tls, seconds
        self._open = Open(bounds.connections, bounds.of_peer)
        self._arriving: Places[asyncio.Task[None]] = Places(bounds.arriving, bounds.arriving_of_peer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._numbers = itertools.count()
        self._refusals = _Refusals()
        self._loop = asyncio.get_running_loop()

    def listen(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            sock.setblocking(False)
            self._sockets.append(sock)
            self._loop.add_reader(sock, self._accept, sock)

    async def close(self) -> None:
        """Take no further connections; return when those that are left ended. The server ends them as it drains."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._refusals.note(error.strerror or str(error))
                self._pause(listening)
                return
            self._take(sock, address)

    def _pause(self, listening: socket.socket) -> None:
        """Pause: without a descriptor the listener would wake us at once, again and again."""
        self._loop.remove_reader(listening)

        def resume() -> None:
            if listening in self._sockets:
                self._loop.add_reader(listening, self._accept, listening)

        self._loop.call_later(_PAUSE_SECONDS, resume)

    def _take(self, sock: socket.socket, address: tuple[str, int]) -> None:
        peer = network(address[0])
        crowded = self._open.enter(peer)
        if crowded:
            self._refusals.note(crowded)
            sock.close()
            return
        task = asyncio.create_task(self._serve(sock, address))
        self._tasks.add(task)
        oldest = self._arriving.add(task, peer)
        if oldest is not None:
            oldest.cancel()

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._arriving.remove(task)
            self._open.leave(peer)

        task.add_done_callback(done)

    async def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Serve it from the first packet to the end of both sides."""
        client, server = Client(), End()
        try:
            async with asyncio.timeout(self._seconds):
                await self._arrive(sock, client, server, as_grpc_names_it(*address[:2]))
            task = asyncio.current_task()
            assert task is not None
            self._arriving.remove(task)
            await asyncio.wait([client.closed, server.closed], return_when=asyncio.FIRST_COMPLETED)
            # A client that is left gets what was written to it, if it takes it soon.
            await asyncio.wait([client.closed, server.closed], timeout=self._seconds)
        except TimeoutError:
            self._refusals.note("it did not settle in time")
        except (NotHttp2, ssl.SSLError) as error:
            self._refusals.note(getattr(error, "reason", None) or str(error))
        except (OSError, asyncio.CancelledError):
            pass  # it hung up, or made room for another
        finally:
            client.abort()
            server.abort()
            sock.close()

    async def _arrive(self, sock: socket.socket, client: Client, server: End, peer: str) -> None:
        context = self._tls.context() if self._tls else None
        with suppress(OSError):  # a client that is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            await self._loop.connect_accepted_socket(lambda: client, sock)
        else:
            await self._loop.connect_accepted_socket(
                lambda: client,
                sock,
                ssl=context,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=self._seconds,
            )
            assert client.transport is not None
            session = client.transport.get_extra_info("ssl_object")
            if session.selected_alpn_protocol() != "h2":
                raise NotHttp2("it does not ask for h2 (ALPN)")
        await client.begun
        await self._loop.create_unix_connection(lambda: server, sock=await self._reach(peer))
        client.meet(server)
        await client.settled

    async def _reach(self, peer: str) -> socket.socket:
        """Connect to gRPC. Our own end is named after the client: gRPC tells that as the call's peer."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.bind(f"\0rexec/{os.getpid()}.{next(self._numbers)}/{peer}")
            while True:
                try:
                    sock.connect(self._target)
                    return sock
                except BlockingIOError:  # its queue is full
                    await asyncio.sleep(_PAUSE_SECONDS)
        except BaseException:
            sock.close()
            raise


class _Refusals:
    """Reports of connections that were not let through, a line a minute: a flood must not fill the log."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told = -_TELL_SECONDS

    def note(self, why: str) -> None:
        self._counts[why if len(self._counts) < 16 else "other reasons"] += 1
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        told = "; ".join(f"{count} because {why}" for why, count in self._counts.items())
        _log.warning("connections were closed before a call: %s", told)
        self._counts.clear()
