"""The ingress before a server that repeats what it hears: bytes, ends, and those who come and say nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.http2_flood import ACK, PREFACE, SETTINGS, frame
from deploy.authority import Authority
from rexec_server.ingress.bounds import Bounds
from rexec_server.ingress.listening import Ingress, Tls
from rexec_server.policy.certificate import CertificateFiles

BEGINNING = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
ROOMY = Bounds(64)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Behind:
    """A server on a unix socket that sends back all that it gets, and knows who came."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.peers: list[str] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.left = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername").decode().lstrip("\0"))
        self.open.add(writer)
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        self.open.discard(writer)
        self.left.set()

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@asynccontextmanager
async def before(
    path: Path, tls: Tls | None = None, *, seconds: float = 60.0, host: str = "127.0.0.1", bounds: Bounds = ROOMY
) -> AsyncIterator[tuple[Behind, Callable[..., Any]]]:
    """Provide an ingress, and a way to connect to it."""
    behind = Behind(path / "behind.sock")
    await behind.start()
    ingress = Ingress(behind.path, tls, bounds, seconds)
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    address = listening.getsockname()[:2]
    ingress.listen([listening])
    try:
        yield behind, lambda **more: asyncio.open_connection(*address, **more)
    finally:
        for writer in list(behind.open):
            writer.close()
        await asyncio.wait_for(ingress.close(), 60)
        await behind.close()


async def begin(streams: Streams) -> Streams:
    """Send an honest beginning, which comes back."""
    reader, writer = streams
    writer.write(BEGINNING)
    assert await reader.readexactly(len(BEGINNING)) == BEGINNING
    return streams


async def ended(streams: Streams) -> None:
    """Waits until the other side has closed, and closes this one."""
    with suppress(OSError):
        assert await asyncio.wait_for(streams[0].read(), 60) == b""
    await hang_up(streams)


async def hang_up(streams: Streams) -> None:
    streams[1].close()
    with suppress(OSError):
        await streams[1].wait_closed()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Tls, ssl.SSLContext]:
    """Provide a listener's certificate, and what its clients trust."""
    maker = Authority()
    pair = maker.for_server("localhost")
    for name, data in (("ca.pem", maker.certificate), ("server.pem", pair.certificate), ("server.key", pair.key)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(data)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    return Tls(CertificateFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key"))), context


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "tls"])
def test_every_byte_arrives_both_ways(tmp_path: Path, authority: tuple[Tls, ssl.SSLContext], with_tls: bool) -> None:
    """16 MiB there and back, with a reader who is slow to begin: none is lost, and none stands in a wrong place."""
    content = os.urandom(16 * 1024 * 1024)
    tls, trusted = authority

    async def run() -> None:
        trusted.set_alpn_protocols(["h2"])
        how = {"ssl": trusted, "server_hostname": "localhost"} if with_tls else {}
        async with before(tmp_path, tls if with_tls else None) as (_, connect):
            reader, writer = await begin(await connect(**how))
            sending = asyncio.create_task(_send(writer, content))
            assert await reader.readexactly(len(content)) == content
            await sending
            await hang_up((reader, writer))

    asyncio.run(run())


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


@pytest.mark.parametrize(("host", "named"), [("127.0.0.1", "ipv4:127.0.0.1:"), ("::1", "ipv6:%5B::1%5D:")])
def test_the_server_is_told_who_comes(tmp_path: Path, host: str, named: str) -> None:
    """The name of the connection behind has the client's address and port, as gRPC would write it."""

    async def run() -> None:
        async with before(tmp_path, host=host) as (behind, connect):
            streams = await begin(await connect())
            port = streams[1].get_extra_info("sockname")[1]
            assert [peer.split("/", 2)[2] for peer in behind.peers] == [f"{named}{port}"]
            await hang_up(streams)

    asyncio.run(run())


def test_whoever_ends_ends_the_other(tmp_path: Path) -> None:
    """A client that hangs up, and a server that does; what the server said last still arrives."""

    async def run() -> None:
        async with before(tmp_path) as (behind, connect):
            await hang_up(await begin(await connect()))
            await asyncio.wait_for(behind.left.wait(), 60)
            reader, writer = await begin(await connect())
            (other,) = behind.open
            other.write(b"the last word")
            other.close()
            assert await reader.read() == b"the last word"
            await hang_up((reader, writer))

    asyncio.run(run())


@pytest.mark.parametrize("said", [b"", PREFACE, PREFACE + frame(SETTINGS, 0, 0)], ids=["nothing", "preface", "no ack"])
def test_who_does_not_settle_in_time_is_cut_off(tmp_path: Path, said: bytes) -> None:
    """Silence, half a beginning, and SETTINGS that are never acknowledged."""

    async def run() -> None:
        async with before(tmp_path, seconds=0.2) as (_, connect):
            reader, writer = await connect()
            writer.write(said)
            await asyncio.wait_for(_drained(reader), 60)
            await hang_up((reader, writer))

    asyncio.run(run())


async def _drained(reader: asyncio.StreamReader) -> None:
    """Waits for the end, whatever is said before it."""
    with suppress(OSError):
        await reader.read()


def test_half_a_handshake_in_time_or_not_at_all(tmp_path: Path, authority: tuple[Tls, ssl.SSLContext]) -> None:
    """A TLS hello that never goes on is cut off too."""

    async def run() -> None:
        async with before(tmp_path, authority[0], seconds=0.2) as (behind, connect):
            reader, writer = await connect()
            writer.write(bytes.fromhex("16030100ff010000fb0303"))
            await ended((reader, writer))
            assert behind.peers == []

    asyncio.run(run())


def test_tls_without_h2_is_refused(tmp_path: Path, authority: tuple[Tls, ssl.SSLContext]) -> None:
    """As gRPC does it: a client that does not ask for HTTP/2 is none."""

    async def run() -> None:
        async with before(tmp_path, authority[0]) as (behind, connect):
            await ended(await connect(ssl=authority[1], server_hostname="localhost"))
            assert behind.peers == []

    asyncio.run(run())


def test_the_oldest_who_has_not_settled_makes_room(tmp_path: Path) -> None:
    """Of one address there may be some at a time; a client that begins as it should finds a place all the same."""

    async def run() -> None:
        bounds = Bounds(64, arriving=16)
        async with before(tmp_path, bounds=bounds) as (_, connect):
            silent = [await connect() for _ in range(bounds.arriving_of_peer)]
            served = await begin(await connect())
            await ended(silent[0])
            assert not silent[1][0].at_eof()
            for streams in (*silent[1:], served):
                await hang_up(streams)

    asyncio.run(run())


def test_one_address_does_not_take_all_connections(tmp_path: Path) -> None:
    """It may have a quarter; one more is closed at once, and there is room again when one has ended."""

    async def run() -> None:
        bounds = Bounds(16)
        async with before(tmp_path, bounds=bounds) as (_, connect):
            open_ = [await begin(await connect()) for _ in range(bounds.of_peer)]
            await ended(await connect())
            await hang_up(open_.pop())
            await asyncio.wait_for(_until_served(connect), 60)
            for streams in open_:
                await hang_up(streams)

    asyncio.run(run())


async def _until_served(connect: Callable[..., Any]) -> None:
    """Wait: the end of a connection is seen a moment later than it is."""
    while True:
        streams = await connect()
        try:
            await begin(streams)
        except (OSError, asyncio.IncompleteReadError):
            continue
        finally:
            await hang_up(streams)
        return
